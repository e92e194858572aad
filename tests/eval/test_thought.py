"""A thought at the beginning of an answer is removed, however its tokens arrive."""

from __future__ import annotations

import pytest

from chat_families import BY_NAME
from slm_plugin.generation.thought import THOUGHTS, ThoughtFilter, without_thought
from slm_plugin.vocabulary import UnitVocabulary
from tiny_models import make_tokenizer

UNITS = 10


@pytest.fixture(scope="module")
def tokenizers():
    """Thought words as special tokens, and as text of several tokens."""
    plain, special = make_tokenizer(), BY_NAME["Qwen 3"].tokenizer()
    for tokenizer in (plain, special):
        UnitVocabulary.extend(tokenizer, UNITS)
    return {"text": plain, "special": special}


def fed(tokenizer, ids, size):
    thought = ThoughtFilter(tokenizer)
    found = [token for start in range(0, len(ids), size) for token in thought.feed(ids[start : start + size])]
    return found + thought.finish()


CASES = {
    "<think>\n\n</think>\n\nhello world": "hello world",
    "<think>\nthe cat is red\n\nor blue\n</think>\n\nhello\n\nworld": "hello\n\nworld",
    "\n<think>a</think>\nhello": "hello",
    "</think>\n\nhello": "hello",
    "<think>\nno end of it": "",
    "<think>\n\n</think>\n\n": "",
    "<think>\n\n</think>\n\n<|3|><|4|>": "<|3|><|4|>",
    "hello <think>a</think> world": "hello <think>a</think> world",
    "\n\nhello": "\n\nhello",
    "<thing> is no thought": "<thing> is no thought",
    "<thi": "<thi",
    "<|3|> the": "<|3|> the",
    "": "",
}


@pytest.mark.parametrize("form", ["text", "special"])
@pytest.mark.parametrize(("answer", "expected"), list(CASES.items()))
def test_what_is_left_of_an_answer(tokenizers, form, answer, expected):
    tokenizer = tokenizers[form]
    ids = tokenizer.encode(answer, add_special_tokens=False)
    for size in (1, 2, 1000):
        assert tokenizer.decode(fed(tokenizer, ids, size), skip_special_tokens=False) == expected
    if expected == answer:
        assert fed(tokenizer, ids, 1) == ids


@pytest.mark.parametrize(("begin", "end"), THOUGHTS)
def test_the_words_of_every_family(tokenizers, begin, end):
    tokenizer = tokenizers["text"]
    ids = tokenizer.encode(f"{begin}\nthe cat\n{end}\n\nhello", add_special_tokens=False)
    assert tokenizer.decode(without_thought(tokenizer, ids)) == "hello"


def test_a_long_thought_is_removed_token_by_token(tokenizers):
    tokenizer = tokenizers["special"]
    ids = tokenizer.encode("<think>\n" + "the cat sat " * 200 + "</think>\n\nhello", add_special_tokens=False)
    assert tokenizer.decode(fed(tokenizer, ids, 1)) == "hello"


def test_generators_of_evaluation_answer_without_the_thought(tokenizers):
    from slm_plugin.eval.generator import EngineGenerator
    from slm_plugin.generation.model import Speaker
    from slm_plugin.generation.protocol import Answer

    tokenizer = tokenizers["special"]

    class Thinking:
        name = "thinking"

        def generate(self, prompts, sampling):
            ids = tokenizer.encode("<think>\n\n</think>\n\nhello\n\nworld", add_special_tokens=False)
            return [Answer(tuple(ids), finished=True) for _ in prompts]

    generator = EngineGenerator(Speaker(tokenizer), Thinking())
    # what spoken_qa splits into the question that was heard and the answer
    assert generator.answer(["<|1|>"], 8) == ["hello\n\nworld"]
