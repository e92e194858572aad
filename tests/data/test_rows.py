"""Columns of rows: either name, either form, and errors that say what was expected."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from slm_plugin.data import rows
from slm_plugin.errors import DataError, VocabularyError
from slm_plugin.vocabulary import units_to_text


@given(st.lists(st.integers(0, 99)))
def test_units_read_the_same_from_ints_and_from_tokens(units):
    assert rows.units({"u": units}, "u", 100) == rows.units({"u": units_to_text(units)}, "u", 100) == units


def test_the_first_present_name_is_taken():
    assert rows.text({"text": None, "transcription": "a"}, "text|transcription") == "a"


def test_a_missing_column_names_what_is_needed_and_what_is_there():
    with pytest.raises(DataError, match="needs the column 'units' or 'discrete_unit'; it has: text, wave"):
        rows.units({"text": "a", "wave": 1}, "units|discrete_unit", 10)


@pytest.mark.parametrize(
    "value",
    [
        [3, 7, 0],
        (3, 7, 0),
        range(3),
        np.array([3, 7, 0], dtype=np.int16),
        np.array([3.0, 7.0]),
        np.array([[3, 7, 0]]),
        [3.0, 7.0],
        [[3, 7, 0]],
        [np.int64(3), np.float32(7)],
        ["3", "7"],
        ["<|3|>", "<|7|>"],
        "3 7 0",
        " 3\n7\t0 ",
        "3,7, 0",
        "[3, 7, 0]",
        "[[3.0, 7]]",
        '["3", "7"]',
        "<|3|><|7|><|0|>",
        "<|3|> <|7|>",
    ],
    ids=str,
)
def test_units_are_read_in_every_common_form(value):
    expected = [0, 1, 2] if isinstance(value, range) else [3, 7, 0]
    found = rows.units({"u": value}, "u", 10)
    assert found == expected[: len(found)]
    assert len(found) >= 2
    assert all(type(unit) is int for unit in found)


@pytest.mark.parametrize("value", [None, "", " ", [], np.array([], dtype=np.int64), [[]]], ids=str)
def test_a_column_without_units_is_empty(value):
    assert rows.units({"u": value}, "u", 10) == []


@pytest.mark.parametrize(
    "value",
    [
        "1 02",
        "1 \u0663",
        "\uff11",
        "1 2 x",
        "1;2",
        "1.0 2.0",
        "+1",
        "[1, 2",
        "[1, NaN]",
        "[true]",
        "<|01|>",
        "<|\u0661|>",
        "<|-1|>",
        "<| 1|>",
        "<|1|> 2",
        "<|1|><|2",
        ["01"],
        ["\u0661"],
        ["<|1|><|2|>"],
        [1, None],
        [float("nan")],
        [float("inf")],
        [1, "x"],
        [np.bool_(True)],
        [[1, 2], [3, 4]],
        [1, [2]],
        np.ones((2, 3), dtype=int),
        {"a": 1},
        b"12",
        7.0,
    ],
    ids=repr,
)
def test_units_in_an_unclear_form_are_refused(value):
    with pytest.raises(DataError, match=r"column 'u' must hold"):
        rows.units({"u": value}, "u", 10)


@pytest.mark.parametrize("value", ["1 -2", "[99999999999999999999999]", "9" * 5000, [1e300], ["-1"]])
def test_units_out_of_range_are_refused_in_every_form(value):
    with pytest.raises(VocabularyError, match=r"outside 0\.\.9"):
        rows.units({"u": value}, "u", 10)


def test_a_text_keeps_no_control_token():
    row = {"text": "a <|5|> b <|eot_id|> c </s>"}
    assert rows.text(row, "text") == "a <\u200b|5|> b <\u200b|eot_id|> c </s>"
    safe = rows.safe({**row, "units": [1, 2], "words": [{"word": "</s>", "units": "<|1|>"}]}, ("</s>",))
    assert safe["text"] == "a <|5|> b <|eot_id|> c <\u200b/s>"
    assert safe["words"] == [{"word": "<\u200b/s>", "units": "<|1|>"}]


@pytest.mark.parametrize(
    "value",
    [
        "anna<|01|>",
        "anna<|1|> sings<|00|>",
        "anna<|\u0661|>",
        "anna<|\uff11|>",
        "anna\uff1c\uff5c1\uff5c\uff1e",
        "anna<|\u00b2|>",
        "anna<|-1|>",
        "anna<|+1|>",
        "anna<|1.5|>",
        "anna<| 1 |>",
        "anna<|1|><|2",
        "anna<|1|><|2|",
        "3|><|1|> sings",
        f"anna<|{'9' * 5000}|>",
    ],
    ids=lambda value: value[:30],
)
def test_a_misspelt_unit_among_words_is_refused(value):
    with pytest.raises(DataError, match="among its words; it must hold unit tokens such as"):
        rows.interleaved({"interleaf": value}, "interleaf", 10)


@pytest.mark.parametrize("words", ["anna", "a | b", "3 | 4", "x < 5 | y", "|", "5|6", "a<|eot_id|>", "<|reserved_5|>"])
def test_words_that_only_look_a_little_like_units_are_kept(words):
    found = rows.interleaved({"interleaf": words + "<|1|>"}, "interleaf", 10)
    assert found.replace("\u200b", "") == words + "<|1|>"
    assert found.count("<|") == 1


def test_an_utterance_can_be_cut_behind_the_units_of_each_word_but_the_last():
    interleaf = "<|9|>anna<|3|><|7|> sings<|1|><|9|> here<|2|>"
    points = rows.cut_points(interleaf, [9, 3, 7, 1, 9, 2], "anna sings here")
    assert points == ((3, 4), (5, 10))


@pytest.mark.parametrize(
    ("interleaf", "units", "said"),
    [
        ("anna<|3|> sings<|1|>", [3, 2], "anna sings"),
        ("anna<|3|> sings<|1|>", [3, 1], "anna sang"),
        ("anna sings<|3|> here<|1|>", [3, 1], "anna sings here"),
        ("anna<|3|> sings", [3], "anna sings"),
    ],
    ids=["other units", "other words", "two words at once", "a word without units"],
)
def test_an_utterance_whose_words_have_no_units_of_their_own_cannot_be_cut(interleaf, units, said):
    assert rows.cut_points(interleaf, units, said) == ()


@pytest.mark.parametrize(
    ("value", "error", "message"),
    [
        ([1, 10], VocabularyError, r"unit 10 at position 1 is outside 0\.\.9"),
        ([-1], VocabularyError, "unit -1 at position 0"),
        ("<|3|> word <|4|>", DataError, "only unit tokens"),
        ([1.5], DataError, "whole numbers or unit tokens"),
        ([True], DataError, "whole numbers or unit tokens"),
        (7, DataError, "must hold units, got int"),
    ],
)
def test_units_of_another_form_are_refused(value, error, message):
    with pytest.raises(error, match=message):
        rows.units({"u": value}, "u", 10)


def test_words_with_units_become_interleaved_text():
    words = [{"word": "anna", "units": [3, 7]}, {"word": "sings", "units": [1]}]
    assert rows.interleaved({"words": words}, "words|interleaf", 10) == "anna<|3|><|7|> sings<|1|>"


def test_units_inside_interleaved_text_are_checked():
    with pytest.raises(VocabularyError, match="unit 12 at position 1"):
        rows.interleaved({"interleaf": "anna<|3|><|12|>"}, "words|interleaf", 10)


@pytest.mark.parametrize("value", [5, ["anna"], [{"word": 3, "units": []}]])
def test_interleaved_text_of_another_form_is_refused(value):
    with pytest.raises(DataError):
        rows.interleaved({"words": value}, "words", 10)


@pytest.mark.parametrize(
    ("instruction", "expected"),
    [("say:", "say: anna"), ("say: ", "say: anna"), ("say:\n", "say:\nanna"), ("", "anna")],
)
def test_an_instruction_and_text_are_joined_by_one_blank_at_most(instruction, expected):
    assert rows.join(instruction, "anna") == expected
