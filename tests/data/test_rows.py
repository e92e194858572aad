"""Columns of rows: either name, either form, and errors that say what was expected."""

from __future__ import annotations

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
