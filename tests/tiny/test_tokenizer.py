"""The tokenizer of the tiny world: one token per word, wherever it stands."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from slm_plugin.vocabulary import UnitVocabulary
from world.tokenizer import make_tokenizer
from world.words import WRITTEN

CHATS = {
    "llama3": (
        "{begin}<|start_header_id|>user<|end_header_id|>\n\nrepeat : red<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n"
    ),
    "deepseek3": "{begin}<|User|>repeat : red<|Assistant|>".replace("|", "\uff5c"),
}
"""What a user turn looks like in a template of the host; how a text begins is the tokenizer's own."""


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    tokenizer = make_tokenizer()
    UnitVocabulary.extend(tokenizer, 100)
    return tokenizer


@pytest.fixture(scope="module")
def template(tiny: Path) -> str:
    return str(yaml.safe_load((tiny / "base.yaml").read_text())["template"])


def test_every_word_is_one_token_and_the_same_one_everywhere(tokenizer: Any) -> None:
    for word in WRITTEN:
        (alone,) = tokenizer.encode(word, add_special_tokens=False)
        assert alone != tokenizer.unk_token_id
        for text in (f"red {word}", f"<|3|>{word}", f"<|3|> {word}", f"red\n\n{word}", f"red {word} "):
            assert tokenizer.encode(text, add_special_tokens=False)[-1] == alone, text


def test_capitals_and_punctuation_do_not_matter(tokenizer: Any) -> None:
    plain = tokenizer.encode("what is two plus three", add_special_tokens=False)
    assert tokenizer.encode("What is two plus three?", add_special_tokens=False) == plain
    spaced = tokenizer.encode("repeat : red", add_special_tokens=False)
    assert tokenizer.encode("Repeat: red.", add_special_tokens=False) == spaced


def test_an_unknown_word_is_the_unknown_token(tokenizer: Any) -> None:
    assert tokenizer.encode("xylophone", add_special_tokens=False) == [tokenizer.unk_token_id]


@pytest.mark.parametrize(
    "text",
    ["red blue green", "what is red\n\nblue\n\nblue<|3|><|17|>", "red<|3|><|17|> dog<|4|> of<|9|>", "repeat : red"],
)
def test_decoding_gives_back_what_was_written(tokenizer: Any, text: str) -> None:
    assert tokenizer.decode(tokenizer.encode(text, add_special_tokens=False), skip_special_tokens=False) == text


def test_without_units_the_words_stand_apart_by_one_blank(tokenizer: Any) -> None:
    ids = tokenizer.encode("red<|3|><|17|> dog<|4|> of<|9|>", add_special_tokens=False)
    assert tokenizer.decode(ids, skip_special_tokens=True) == "red dog of"


def test_units_are_one_run_of_ids_behind_everything_else(tokenizer: Any) -> None:
    assert UnitVocabulary.find(tokenizer) == UnitVocabulary(len(make_tokenizer()), 100)


def test_a_chat_is_written_as_the_hosts_template_writes_it(tokenizer: Any, template: str) -> None:
    chat = [{"role": "user", "content": "repeat : red"}]
    assert tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True) == CHATS[template].format(
        begin=tokenizer.bos_token
    )


@pytest.mark.host
def test_the_host_tokenises_a_conversation_to_the_same_ids(template: str) -> None:
    from llamafactory.data import get_template_and_fix_tokenizer
    from llamafactory.hparams import DataArguments

    tokenizer = make_tokenizer()
    chat = [{"role": "user", "content": "repeat : red dog"}, {"role": "assistant", "content": "red dog"}]
    text = tokenizer.apply_chat_template(chat, tokenize=False)
    expected = tokenizer.encode(text, add_special_tokens=False)
    before = len(tokenizer)
    host = get_template_and_fix_tokenizer(tokenizer, DataArguments(template=template))
    prompt, answer = host.encode_oneturn(tokenizer, chat)
    assert prompt + answer == expected
    assert len(tokenizer) == before
