"""Shares and error rates with their standard errors."""

from __future__ import annotations

import pytest

from slm_plugin.eval.match import matches
from slm_plugin.eval.normalise import Normalisation, normaliser, plain
from slm_plugin.eval.rates import character_error_rate, share, unit_error_rate, word_error_rate


def test_a_share_has_the_standard_error_of_a_proportion() -> None:
    rate = share([True, True, True, False])
    # sqrt(.75 * .25 / 4) = .2165
    assert (rate.value, rate.n) == (0.75, 4)
    assert rate.standard_error == pytest.approx(0.2165, abs=1e-4)


def test_errors_are_counted_over_all_words() -> None:
    # one substitution, one insertion, one deletion on 2 + 1 + 2 words
    rate = word_error_rate(["red dog", "cat", "two plus"], ["red cat", "cat cat", "two"])
    assert (rate.value, rate.n) == (0.6, 5)
    # e - W n = 1 - 1.2, 1 - .6, 1 - 1.2: sqrt(3/2 * (.04 + .16 + .04)) / 5 = .12
    assert rate.standard_error == pytest.approx(0.12)


def test_silence_misses_every_word_and_chatter_can_exceed_one() -> None:
    assert word_error_rate(["red dog", "cat"], ["", ""]).value == 1.0
    assert word_error_rate(["red"], ["red red red"]).value == 2.0


def test_one_utterance_has_no_standard_error() -> None:
    assert word_error_rate(["red dog"], ["red dog"]).standard_error is None


def test_case_and_blanks_do_not_count() -> None:
    assert plain("  Red\n Dog ") == "red dog"


def test_characters_are_counted_with_blanks() -> None:
    # "red dog" has seven characters; "red dig" and "reddog" are one error away each
    rate = character_error_rate(["red dog", "red dog"], ["red dig", "reddog"])
    assert (rate.value, rate.n) == (2 / 14, 14)
    assert rate.items == ((1.0, 7.0), (1.0, 7.0))
    assert character_error_rate(["red"], [""]).value == 1.0


def test_units_are_compared_as_wholes() -> None:
    # 12 is one unit, not a 1 and a 2: one substitution and one missing unit of five
    rate = unit_error_rate([[1, 12, 3], [4, 5]], [[1, 2, 3], [4]])
    assert (rate.value, rate.n) == (0.4, 5)
    assert unit_error_rate([[7]], [[]]).value == 1.0


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("case", "  Red,  Dog ", "red, dog"),
        ("punctuation", "It's Anna's twenty-one dogs (barking)!", "it s anna s twenty one dogs"),
        ("english", "It's Anna's twenty-one dogs (barking)!", "it is anna is 21 dogs"),
        ("english", "Mr. Smith", "mister smith"),
    ],
)
def test_what_does_not_count_is_left_out(name: Normalisation, text: str, expected: str) -> None:
    assert normaliser(name)(text) == expected


@pytest.mark.parametrize(
    ("answer", "right", "how", "expected"),
    [
        ("red", ["blue", "red"], "exact", True),
        ("a red dog", ["red"], "exact", False),
        ("a red dog", ["red dog"], "contains", True),
        ("a redder dog", ["red"], "contains", False),
        ("", [""], "exact", False),
        ("anything", [""], "contains", False),
    ],
)
def test_an_answer_is_right_when_it_is_or_names_one_of_the_right_ones(answer, right, how, expected) -> None:
    assert matches(answer, right, how) is expected
