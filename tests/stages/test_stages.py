"""What each stage makes of a row without the host: edge cases beside the parity test of the host tests."""

from __future__ import annotations

import pytest

from slm_plugin.plugins import Registry
from slm_plugin.records import Sample
from slm_plugin.stages.sqa import UNSPEAKABLE
from slm_plugin.stages.tts import speaking_instruction


@pytest.fixture(scope="module")
def sample():
    registry = Registry.load(entry_points=False)
    return lambda stage, row: registry.stages.get(stage)().sample(row, 10)


def test_llm_takes_magpie_columns_too(sample):
    row = {"instruction": "hello", "response": "the dog"}
    assert sample("llm", row) == Sample("hello", "the dog")


def test_asr_and_tts_have_an_instruction_of_their_own_where_the_row_has_none(sample):
    assert sample("asr", {"units": [1], "text": "a"}).user == "Please repeat the following words: <|1|>"
    row = {"text": "a", "words": [{"word": "a", "units": [1]}]}
    assert sample("tts", row).user == "Please speak out loud the following words: a"


@pytest.mark.parametrize(
    ("instruction", "expected"),
    [
        ("Please repeat the words: ", "Please speak out loud the words: "),
        ("Repeat after me: ", "Speak out loud after me: "),
        ("Say this: ", "Say this: "),
        ("Do what a repeater does: ", "Do what a repeater does: "),
    ],
)
def test_an_instruction_to_repeat_becomes_one_to_speak(instruction, expected):
    assert speaking_instruction(instruction) == expected


@pytest.mark.parametrize(
    ("stage", "row"),
    [
        ("llm", {"input": " ", "output": "x"}),
        ("llm", {"input": "x", "output": None}),
        ("asr", {"units": [], "text": "a"}),
        ("asr", {"units": [1], "text": " "}),
        ("tts", {"text": "a", "words": []}),
        ("tts", {"text": "a", "interleaf": "a without sound"}),
        ("sqa", {"input_unit": [], "input_pseudo": "q", "output_pseudo": "a", "output_7306_interleaf": "a<|1|>"}),
        ("sqa", {"input_unit": [1], "input_pseudo": "q", "output_pseudo": "", "output_7306_interleaf": "a<|1|>"}),
    ],
)
def test_an_empty_row_gives_no_sample(sample, stage, row):
    assert sample(stage, row) is None


@pytest.mark.parametrize("category", sorted(UNSPEAKABLE))
def test_sqa_drops_categories_that_nobody_would_say_aloud(sample, category):
    row = {"input_unit": [1], "input_pseudo": "q", "output_pseudo": "a", "output_7306_interleaf": "a<|1|>"}
    assert sample("sqa", {**row, "task_category": "Advice seeking"}) == Sample("<|1|>", "q\n\na\n\na<|1|>")
    assert sample("sqa", {**row, "task_category": category}) is None


SQA = {"input_unit": [3, 7], "output_7306_interleaf": "anna<|1|>"}


@pytest.mark.parametrize(
    ("stage", "row", "expected"),
    [
        # units alone need no words
        ("asr", {"units": [3, 7]}, "<|3|><|7|>"),
        ("asr", {"units": [], "text": "a"}, None),
        ("tts", {"words": [{"word": "anna", "units": [3]}, {"word": "sings", "units": [1]}]}, "anna<|3|> sings<|1|>"),
        ("tts", {"interleaf": "a without sound"}, None),
        ("sqa", SQA, "<|3|><|7|>\n\nanna<|1|>"),
        ("sqa", SQA | {"input_unit": []}, None),
        ("sqa", SQA | {"task_category": "Math"}, None),
        ("llm", {"input": "hello", "output": "the dog"}, "hello\n\nthe dog"),
        ("llm", {"input": "hello", "output": " "}, None),
    ],
)
def test_a_row_is_one_continuous_text_in_pretraining(stage, row, expected):
    assert Registry.load(entry_points=False).stages.get(stage)().continuous_text(row, 10) == expected
