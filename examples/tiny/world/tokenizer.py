"""A tokenizer with one token per word, dressed as Llama 3's."""

from __future__ import annotations

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from world.words import ROLES, WRITTEN

BREAK = "\n\n"
BEGIN, END_OF_TURN, PAD, UNKNOWN = "<|begin_of_text|>", "<|eot_id|>", "<|finetune_right_pad_id|>", "<|unknown|>"
SPECIAL = (
    UNKNOWN,
    BEGIN,
    "<|end_of_text|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    END_OF_TURN,
    "<|eom_id|>",
    PAD,
)
CHAT_TEMPLATE = (
    "{{- bos_token }}"
    "{%- for message in messages %}"
    "{{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n' + message['content'] + '<|eot_id|>' }}"
    "{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{%- endif %}"
)
MAX_LENGTH = 512


def make_tokenizer() -> PreTrainedTokenizerFast:
    """Return the tokenizer: 114 words and roles, the blank line, and Llama 3's special tokens.

    Text is lower-cased and its punctuation dropped, so that a person may write "What is two plus
    three?". A word is one token wherever it stands: at the start, after a blank or after a unit.
    """
    words = [f"▁{word}" for word in sorted({*WRITTEN, *ROLES})]
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
        eos_token=END_OF_TURN,
        pad_token=PAD,
        unk_token=UNKNOWN,
        chat_template=CHAT_TEMPLATE,
        model_max_length=MAX_LENGTH,
        clean_up_tokenization_spaces=False,
    )
