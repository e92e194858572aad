"""A tokenizer with one token per word and a chat form of few tokens: most samples are shorter than a sentence."""

from __future__ import annotations

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from world.words import WRITTEN

BREAK = "\n\n"
BEGIN, END, USER, ASSISTANT, PAD, UNKNOWN = SPECIAL = (
    "<|begin|>",
    "<|end|>",
    "<｜User｜>",
    "<｜Assistant｜>",
    "<|pad|>",
    "<|unknown|>",
)
"""A chat costs four of them; the bars of two are as the host's ``template: deepseek3`` spells them."""

CHAT_TEMPLATE = (
    "{{- bos_token }}"
    "{%- for message in messages %}"
    f"{{%- if message['role'] == 'user' %}}{{{{- '{USER}' + message['content'] + '{ASSISTANT}' }}}}"
    "{%- elif message['role'] == 'assistant' %}{{- message['content'] + eos_token }}"
    "{%- else %}{{- message['content'] }}{%- endif %}"
    "{%- endfor %}"
)
MAX_LENGTH = 512


def make_tokenizer() -> PreTrainedTokenizerFast:
    """Return the tokenizer: one token for each of the world's words, the blank line, and the special tokens.

    Text is lower-cased and its punctuation dropped, so that a person may write "What is two plus
    three?". A word is one token wherever it stands: at the start, after a blank or after a unit.
    """
    words = [f"▁{word}" for word in sorted(WRITTEN)]
    vocabulary = {token: number for number, token in enumerate([*SPECIAL, BREAK, *words])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=UNKNOWN))
    # these see the text between special tokens, hence never the blank line or a unit
    tokenizer.normalizer = normalizers.Sequence(
        [
            normalizers.Lowercase(),
            normalizers.Replace(Regex(r"[?!.,;\"]"), " "),
            normalizers.Replace(":", " : "),
            normalizers.Replace(Regex(r"\s+"), " "),
            normalizers.Strip(),
        ]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    tokenizer.decoder = decoders.Sequence(
        [decoders.Metaspace(prepend_scheme="always"), decoders.Fuse(), decoders.Replace(f"{BREAK} ", BREAK)]
    )
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL])
    tokenizer.add_tokens([AddedToken(BREAK, special=False, normalized=False)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=BEGIN,
        eos_token=END,
        pad_token=PAD,
        unk_token=UNKNOWN,
        chat_template=CHAT_TEMPLATE,
        model_max_length=MAX_LENGTH,
        clean_up_tokenization_spaces=False,
    )
