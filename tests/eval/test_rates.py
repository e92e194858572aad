"""Shares and error rates with their standard errors."""

from __future__ import annotations

import pytest

from slm_plugin.eval.rates import plain, share, word_error_rate


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
