"""Words and their units: the invariants, and worked cases."""

from __future__ import annotations

import math
from itertools import groupby

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slm_plugin.records import WordSpan
from slm_plugin.speech.interleave import Segment, Silence, interleave, render

NAN = math.nan


def test_a_word_owns_the_frames_whose_centre_lies_in_its_span() -> None:
    # ten frames a second: centres at .05, .15, .25, ...; red ends at .20, before frame 2
    words = [WordSpan("red", 0.0, 0.20), WordSpan("dog", 0.20, 0.50)]
    assert interleave(words, [1, 2, 3, 4, 5], 10.0) == [Segment("red", (1, 2)), Segment("dog", (3, 4, 5))]


@pytest.mark.parametrize(
    ("silence", "expected"),
    [
        ("previous", [Segment("red", (9, 1, 9)), Segment("dog", (2, 9))]),
        ("next", [Segment("red", (9, 1)), Segment("dog", (9, 2, 9))]),
        ("own", [Segment("", (9,)), Segment("red", (1,)), Segment("", (9,)), Segment("dog", (2,)), Segment("", (9,))]),
        ("drop", [Segment("red", (1,)), Segment("dog", (2,))]),
    ],
)
def test_silence_goes_where_the_policy_says(silence: Silence, expected: list[Segment]) -> None:
    words = [WordSpan("red", 0.1, 0.2), WordSpan("dog", 0.3, 0.4)]
    assert interleave(words, [9, 1, 9, 2, 9], 10.0, silence) == expected


def test_overlapping_words_are_cut_in_the_middle_of_the_overlap() -> None:
    # overlap .2 to .4: cut at .3, between the centres .25 and .35
    words = [WordSpan("red", 0.0, 0.4), WordSpan("dog", 0.2, 0.6)]
    assert interleave(words, [1, 2, 3, 4, 5, 6], 10.0) == [Segment("red", (1, 2, 3)), Segment("dog", (4, 5, 6))]


def test_missing_times_are_spread_by_characters() -> None:
    # .6 seconds for 2 + 4 characters: a third and two thirds
    words = [WordSpan("an", NAN, NAN), WordSpan("rose", NAN, NAN)]
    assert interleave(words, [1, 2, 3, 4, 5, 6], 10.0) == [Segment("an", (1, 2)), Segment("rose", (3, 4, 5, 6))]


def test_a_word_without_frames_goes_with_the_next_and_the_last_with_the_one_before() -> None:
    words = [WordSpan("of", 0.0, 0.01), WordSpan("the", 0.01, 0.2), WordSpan("dog", 0.2, 0.2)]
    assert interleave(words, [1, 2], 10.0) == [Segment("of the dog", (1, 2))]


def test_a_folded_run_belongs_to_the_word_it_starts_in() -> None:
    words = [WordSpan("red", 0.0, 0.2), WordSpan("dog", 0.2, 0.4)]
    assert interleave(words, [7, 7, 7, 8], 10.0, fold=True) == [Segment("red", (7,)), Segment("dog", (8,))]
    # the second word only continues the run, so it has no unit of its own
    assert interleave(words, [6, 7, 7, 7], 10.0, fold=True) == [Segment("red dog", (6, 7))]


def test_the_first_centre_shifts_the_grid() -> None:
    # centres at .2, .3, .4 instead of .05, .15, .25
    words = [WordSpan("red", 0.0, 0.25), WordSpan("dog", 0.25, 0.5)]
    assert interleave(words, [1, 2, 3], 10.0, first_centre_s=0.2) == [Segment("red", (1,)), Segment("dog", (2, 3))]


def test_no_frames_give_the_words_alone_and_no_words_the_units_alone() -> None:
    assert interleave([WordSpan("red", 0.0, 1.0)], [], 10.0) == [Segment("red", ())]
    assert interleave([], [1, 2], 10.0) == [Segment("", (1, 2))]
    assert interleave([], [], 10.0) == []


def test_segments_are_written_with_one_blank_between_words() -> None:
    assert render([Segment("red", (3, 17)), Segment("dog", (40,))]) == "red<|3|><|17|> dog<|40|>"


times = st.one_of(st.just(NAN), st.floats(-1.0, 3.0), st.just(math.inf))
word_spans = st.builds(WordSpan, st.sampled_from(["a", "of", "window", "mountain"]), times, times)


@given(
    words=st.lists(word_spans, max_size=6),
    units=st.lists(st.integers(0, 3), max_size=40),
    silence=st.sampled_from(["previous", "next", "own", "drop"]),
    fold=st.booleans(),
    rate_hz=st.sampled_from([10.0, 33.333, 50.0]),
)
def test_units_and_words_survive_whatever_the_times_are(
    words: list[WordSpan], units: list[int], silence: Silence, fold: bool, rate_hz: float
) -> None:
    segments = interleave(words, units, rate_hz, silence, fold)
    joined = [unit for segment in segments for unit in segment.units]
    whole = [unit for unit, _ in groupby(units)] if fold else units
    if silence != "drop" or not words:
        assert joined == whole
    else:
        assert len(joined) <= len(units)
    assert " ".join(segment.text for segment in segments if segment.text).split() == [word.word for word in words]
    if joined:
        assert all(segment.units for segment in segments)
    if silence in ("previous", "next") and words:
        assert all(segment.text for segment in segments)
