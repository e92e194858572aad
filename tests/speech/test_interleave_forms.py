"""Fixed blocks, phrases and spans: nothing is lost, nothing is doubled, nothing is empty."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from slm_plugin.speech.interleave import Segment, render
from slm_plugin.speech.interleave_forms import by_phrase, by_ratio, random_spans


def test_blocks_alternate_and_the_rest_follows():
    # 5 pieces and 4 units by 2 : 1: after 2 + 1, 2 + 1 the last piece comes with the units that are left
    assert by_ratio(["a", "b", "c", "d", "e"], [1, 2, 3, 4], 2, 1) == [
        Segment("ab", (1,)),
        Segment("cd", (2,)),
        Segment("e", (3, 4)),
    ]
    # text outlasts the units
    assert by_ratio(["a", "b", "c", "d"], [1], 1, 1) == [Segment("a", (1,)), Segment("bcd", ())]
    assert by_ratio([], [1, 2], 3, 1) == [Segment("", (1, 2))]
    assert by_ratio([], [], 3, 1) == []


@given(
    pieces=st.lists(st.text("ab ", min_size=1, max_size=3), max_size=20),
    units=st.lists(st.integers(0, 9), max_size=40),
    n_pieces=st.integers(1, 7),
    n_units=st.integers(1, 12),
)
def test_blocks_keep_all_text_and_all_units_and_their_sizes(
    pieces: list[str], units: list[int], n_pieces: int, n_units: int
):
    segments = by_ratio(pieces, units, n_pieces, n_units)
    assert "".join(segment.text for segment in segments) == "".join(pieces)
    assert [unit for segment in segments for unit in segment.units] == units
    assert all(segment.text or segment.units for segment in segments)
    # only the last block may have another number of units
    assert all(len(segment.units) == n_units for segment in segments[:-1] if segment is not segments[-1]) or (
        len(units) < n_units * len(segments)
    )
    if n_units * math.ceil(len(pieces) / n_pieces) <= len(units):
        assert len(segments) == max(1, math.ceil(len(pieces) / n_pieces)) if pieces or units else not segments


WORDS = [
    Segment("Yes,", (1,)),
    Segment("the", (2, 3)),
    Segment("red", (4,)),
    Segment("dog.", (5,)),
    Segment("So", (6,)),
]


def test_phrases_end_at_punctuation_at_silence_and_at_their_longest():
    assert by_phrase(WORDS, 10) == [Segment("Yes,", (1,)), Segment("the red dog.", (2, 3, 4, 5)), Segment("So", (6,))]
    assert [phrase.text for phrase in by_phrase(WORDS, 2)] == ["Yes,", "the red", "dog.", "So"]
    silence = [WORDS[1], Segment("", (9,)), WORDS[2]]
    assert by_phrase(silence, 10) == [Segment("the", (2, 3)), Segment("", (9,)), Segment("red", (4,))]


@pytest.mark.parametrize("last", ['dog."', "狗。", "dog!)"])
def test_punctuation_inside_quotes_and_of_other_scripts_ends_a_phrase(last: str):
    assert len(by_phrase([Segment(last, (1,)), Segment("x", (2,))], 10)) == 2


words = st.sampled_from(["a", "of", "dog.", "red,", ""])
segment_lists = st.lists(st.builds(Segment, words, st.lists(st.integers(0, 9), min_size=1, max_size=4).map(tuple)))


@given(segments=segment_lists, max_words=st.integers(1, 5), joiner=st.sampled_from([" ", ""]))
def test_phrases_keep_every_word_and_every_unit(segments: list[Segment], max_words: int, joiner: str):
    phrases = by_phrase(segments, max_words, joiner)
    assert [unit for phrase in phrases for unit in phrase.units] == [u for s in segments for u in s.units]
    spoken = [segment.text for segment in segments if segment.text]
    assert "".join(phrase.text for phrase in phrases).replace(" ", "") == "".join(spoken)
    assert all(phrase.units for phrase in phrases)


def test_a_share_of_0_is_all_text_and_1_all_units():
    generator = np.random.default_rng(1)
    assert random_spans(WORDS, 0.0, 3.0, generator) == [Segment("Yes, the red dog. So", ())]
    assert random_spans(WORDS, 1.0, 3.0, generator) == [Segment("", (1, 2, 3, 4, 5, 6))]


def test_spans_are_written_without_a_blank_before_units_and_with_one_before_text():
    spans = random_spans(WORDS, 0.5, 1.0, np.random.default_rng(3))
    # mean length 1: one word as text, one as units, and so on
    assert render(spans, "") in (
        "Yes,<|2|><|3|> red<|5|> So",
        "<|1|> the<|4|> dog.<|6|>",
    )


@given(segments=segment_lists, share=st.floats(0, 1), mean=st.floats(1, 6), seed=st.integers(0, 2**32))
def test_every_word_is_kept_once_as_text_or_as_units(segments: list[Segment], share: float, mean: float, seed: int):
    spans = random_spans(segments, share, mean, np.random.default_rng(seed))
    assert spans == random_spans(segments, share, mean, np.random.default_rng(seed))
    # silence goes with the word before it, at the beginning with the first
    words: list[tuple[str, tuple[int, ...]]] = []
    for segment in segments:
        if words and (not segment.text or not words[-1][0]):
            words[-1] = (words[-1][0] or segment.text, words[-1][1] + segment.units)
        else:
            words.append((segment.text, segment.units))
    for span in spans:
        assert bool(span.text) != bool(span.units)
        text, units = span.text.split(), span.units
        while text or units:
            word, spoken = words.pop(0)
            if text:
                assert text.pop(0) == word
            else:
                assert units[: len(spoken)] == spoken
                units = units[len(spoken) :]
    assert not words
    assert all(bool(a.text) != bool(b.text) for a, b in itertools.pairwise(spans))


def test_the_share_of_words_kept_as_units_is_the_one_asked_for():
    many = [Segment(f"w{number}", (number % 10,)) for number in range(20_000)]
    spans = random_spans(many, 0.3, 7.0, np.random.default_rng(0))
    # means 7 (text) and 7 * .3 / .7 = 3 (units): 3 / 10 of the words
    assert sum(len(span.units) for span in spans) / len(many) == pytest.approx(0.3, abs=0.02)
