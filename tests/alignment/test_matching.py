"""Spans of a source's words become spans of the text's words."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slm_plugin.alignment.known import EvenAligner, Matched, SourceAligner
from slm_plugin.alignment.matching import carry_over
from slm_plugin.errors import AlignmentError
from slm_plugin.records import WordSpan


def spans(*words: str) -> list[WordSpan]:
    """One second a word."""
    return [WordSpan(word, float(number), number + 1.0) for number, word in enumerate(words)]


def times(found: tuple[WordSpan, ...]) -> list[tuple[str, float, float] | str]:
    return [(span.word, span.start_s, span.end_s) if math.isfinite(span.start_s) else span.word for span in found]


def test_case_and_punctuation_make_no_difference():
    found, share = carry_over(["The", "red", "dog."], spans("the", "red", "dog"))
    assert times(found) == [("The", 0, 1), ("red", 1, 2), ("dog.", 2, 3)]
    assert share == 1.0


def test_words_that_are_cut_otherwise_go_by_their_letters():
    # d o n t: the source has do (0-1 s) and nt (1-2 s)
    assert times(carry_over(["I", "don't"], [WordSpan("i", -1, 0), *spans("do", "n't")])[0])[1] == ("don't", 0, 2)
    # newyork 1 s long: new is 3 of 7 letters
    found, _ = carry_over(["New", "York"], spans("NEWYORK"))
    assert found[0].end_s == pytest.approx(3 / 7)
    assert found[1].start_s == pytest.approx(3 / 7)
    assert found[1].end_s == pytest.approx(1.0)


def test_an_unknown_word_takes_the_place_it_stands_in():
    assert times(carry_over(["the", "zyzzyva", "sings"], spans("the", "<unk>", "sings"))[0])[1] == ("zyzzyva", 1, 2)


def test_what_is_not_there_has_no_times():
    found, share = carry_over(["the", "big", "red", "dog"], spans("the", "red", "dog"))
    assert times(found) == [("the", 0, 1), "big", ("red", 1, 2), ("dog", 2, 3)]
    assert share == 0.75


@given(st.lists(st.sampled_from(["a", "b", "Don't", "...", "c-d"])), st.lists(st.sampled_from(["a", "b", "do", "nt"])))
def test_every_word_gets_one_span_and_times_never_run_backwards(words: list[str], known: list[str]):
    found, share = carry_over(words, spans(*known))
    assert [span.word for span in found] == words
    starts = [span.start_s for span in found if math.isfinite(span.start_s)]
    assert starts == sorted(starts)
    assert 0.0 <= share <= 1.0


def test_another_text_is_refused_with_the_share_that_was_found():
    aligner = SourceAligner(Matched(min_matched=0.6))
    with pytest.raises(
        AlignmentError, match="only 50% of the words of x are among its word times, fewer than the 60%"
    ):
        aligner.align("x", None, 16_000, ["red", "dog"], spans("red"))
    with pytest.raises(AlignmentError, match="x has no word times"):
        aligner.align("x", None, 16_000, ["red", "dog"], [])


def test_even_knows_no_times():
    found = EvenAligner(EvenAligner.Options()).align("x", None, 16_000, ["red", "dog"], [])
    assert times(found.words) == ["red", "dog"]
    assert found.score is None
