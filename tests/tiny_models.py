"""Tiny Llama-3-like tokenizers and random Llamas on disk, for tests that need a real host or a real engine.

The tokenizer is a byte-level BPE with Llama 3's split pattern and special tokens; its chat template
gives the same text as the host's ``template: llama3``. Everything is the same in every run.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

from slm_plugin.vocabulary import UnitVocabulary

BEGIN, END, START_HEADER, END_HEADER, END_OF_TURN, END_OF_MESSAGE, PAD = SPECIAL_TOKENS = (
    "<|begin_of_text|>",
    "<|end_of_text|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|eot_id|>",
    "<|eom_id|>",
    "<|finetune_right_pad_id|>",
)
PADDING_VALUE = 0.5
"""What padded rows hold: far from every other value, so that a row or a mean made from them shows."""
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{{ '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n' + message['content'] + '<|eot_id|>' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
_SENTENCES = (
    "the a cat dog sat on mat please repeat following words say echo what is your name hello world this that"
    " speech text audio answer question how are you today good morning music red blue green one two three four"
    " five six seven eight nine ten transcribe recording aloud loud speak"
)
# the split pattern published with Llama 3's tokenizer
_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def make_tokenizer(units: int = 0, vocabulary_size: int = 505) -> Any:
    """Make a fast tokenizer of ``vocabulary_size`` byte-level BPE tokens, Llama 3's special ones and units.

    Args:
        units: Unit tokens ``<|0|>``.. to add behind everything else.
        vocabulary_size: BPE tokens, at least the 256 bytes.

    Returns:
        A ``PreTrainedTokenizerFast`` whose end of sequence is ``<|eot_id|>``.
    """
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    draw, words = random.Random(0), _SENTENCES.split()
    corpus = [" ".join(draw.choices(words, k=12)) for _ in range(3000)]
    corpus += ["user", "assistant", "system", "\n\n", "Please repeat the following words: "] * 50
    raw = Tokenizer(models.BPE(ignore_merges=True))
    split = pre_tokenizers.Split(Regex(_SPLIT), "isolated")
    raw.pre_tokenizer = pre_tokenizers.Sequence(
        [split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    raw.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=vocabulary_size, initial_alphabet=alphabet, show_progress=False)
    raw.train_from_iterator(corpus, trainer)
    raw.add_special_tokens(list(SPECIAL_TOKENS))
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=raw,
        bos_token=BEGIN,
        eos_token=END_OF_TURN,
        pad_token=PAD,
        model_max_length=8192,
        clean_up_tokenization_spaces=False,
        chat_template=CHAT_TEMPLATE,
    )
    if units:
        UnitVocabulary.extend(tokenizer, units)
    return tokenizer


def make_model(
    folder: Path | str,
    tie: bool = False,
    units: int = 0,
    hidden: int = 64,
    layers: int = 2,
    seed: int = 0,
    tokenizer: Any = None,
    padding: int = 0,
) -> Path:
    """Write a random Llama and its tokenizer, as ``from_pretrained`` and vLLM read them.

    Args:
        folder: Where to write; made when absent.
        tie: Whether input and output embeddings are one matrix.
        units: Unit tokens in the vocabulary.
        hidden: Width, a multiple of 64.
        layers: Number of layers.
        seed: Seed of the weights; torch's global generator is left as it was.
        tokenizer: Another tokenizer than :func:`make_tokenizer`'s.
        padding: Rows of embeddings and head behind the last token, each filled with :data:`PADDING_VALUE`.

    Returns:
        The folder.
    """
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = make_tokenizer(units) if tokenizer is None else tokenizer
    config = LlamaConfig(
        vocab_size=len(tokenizer) + padding,
        hidden_size=hidden,
        intermediate_size=2 * hidden,
        num_hidden_layers=layers,
        # heads of 32, the smallest that vLLM's CPU attention has
        num_attention_heads=hidden // 32,
        num_key_value_heads=max(1, hidden // 64),
        max_position_embeddings=8192,
        tie_word_embeddings=tie,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = LlamaForCausalLM(config)
    with torch.no_grad():
        for matrix in (model.get_input_embeddings(), model.get_output_embeddings()):
            matrix.weight[len(tokenizer) :] = PADDING_VALUE
    path = Path(folder)
    path.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path
