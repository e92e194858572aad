"""User turns that are asked, and rows made of the answers."""

from __future__ import annotations

import pytest

from replay_synthesis.world import UNITS, interleaf
from slm_plugin.errors import DataError, VocabularyError
from slm_plugin.plugins import Registry
from slm_plugin.replay_synthesis.options import Limits
from slm_plugin.replay_synthesis.prompts import make_task

LIMITS = Limits()


@pytest.fixture(scope="module")
def stages():
    found = Registry.load(entry_points=False).stages
    return {name: found.get(name)() for name in ("llm", "asr", "tts", "sqa")}


def task(name, prompts, stages):
    return make_task(name, prompts, stages, UNITS, LIMITS)


CASES = {
    "llm": ({"input": "say red cat", "output": "ignored"}, "red cat of course"),
    "asr": ({"discrete_unit": [1, 2], "instruction": "Repeat: ", "transcription": "ignored"}, "red"),
    "tts": ({"transcription": "red cat", "instruction": "Please repeat: "}, interleaf("red cat")),
    "sqa": ({"input_unit": [1, 2], "task_category": "Math"}, f"red\n\nblue cat\n\n{interleaf('blue cat')}"),
}


@pytest.mark.parametrize("name", CASES)
def test_the_stage_reads_a_written_row_as_the_conversation_that_was_had(name, stages):
    prompt, answer = CASES[name]
    found = task(name, [prompt], stages)
    (draft,) = found.drafts
    row = found.complete(draft.row, answer)
    sample = stages[name].sample(row, UNITS)
    assert (sample.user, sample.assistant) == (draft.user, answer)


def test_prompts_are_read_under_either_name_and_written_under_the_published_one(stages):
    found = task("asr", [{"units": "<|3|><|4|>", "text": "ignored"}], stages)
    assert found.drafts[0].user == "Please repeat the following words: <|3|><|4|>"
    assert found.complete(found.drafts[0].row, "red") == {"discrete_unit": [3, 4], "transcription": "red"}


def test_speech_recognition_without_units_hears_the_model_s_own_speech(stages):
    found = task("asr", [{"text": "red cat"}], stages)
    assert found.asks == "tts"
    assert found.drafts[0].user == "Please speak out loud the following words: red cat"
    row = found.complete(found.drafts[0].row, interleaf("red cat"))
    assert row == {"transcription": "red cat", "discrete_unit": [1, 2, 3, 7, 8, 9], "origin": "own_speech"}
    assert stages["asr"].sample(row, UNITS).user.endswith("<|1|><|2|><|3|><|7|><|8|><|9|>")


@pytest.mark.parametrize(
    ("name", "answer", "reason"),
    [
        ("llm", "red<|3|>", "units where none belong"),
        ("llm", "  ", "empty"),
        ("asr", "<|3|>", "units where none belong"),
        ("tts", "red cat", "malformed interleaving"),
        ("tts", "red<|1|> dog<|2|>", "other words than those to be spoken"),
        ("sqa", f"red\n\n{interleaf('blue')}", "malformed sections"),
        ("sqa", f"red\n\n\n\n{interleaf('blue')}", "malformed sections"),
        ("sqa", f"red<|1|>\n\nblue\n\n{interleaf('blue')}", "units where none belong"),
        ("sqa", "red\n\nblue\n\nblue", "malformed interleaving"),
        ("sqa", f"red\n\nblue\n\n{interleaf('red')}", "other words than those to be spoken"),
    ],
)
def test_an_answer_of_another_form_is_no_row(name, answer, reason, stages):
    found = task(name, [CASES[name][0]], stages)
    assert found.complete(found.drafts[0].row, answer) == reason


def test_rows_that_cannot_be_asked_are_passed_over(stages):
    assert len(task("tts", [{"text": " "}, {"text": "red"}], stages).drafts) == 1
    with pytest.raises(DataError, match="they need the column input_unit, not empty"):
        task("sqa", [{"input_unit": []}], stages)


def test_a_unit_out_of_range_is_refused(stages):
    with pytest.raises(VocabularyError, match=r"unit 20 at position 0 is outside 0\.\.19"):
        task("asr", [{"discrete_unit": [20]}], stages)
