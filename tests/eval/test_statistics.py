"""Resampling of scores against closed forms."""

from __future__ import annotations

import numpy as np
import pytest

from slm_plugin.errors import DataError
from slm_plugin.eval.rates import share, word_error_rate
from slm_plugin.eval.statistics import compared, resampled, spread

HITS = [True] * 30 + [False] * 70


def test_the_resampled_error_of_a_share_is_the_binomial_one():
    # sqrt(.3 * .7 / 100) = .0458
    found = resampled(share(HITS).items, np.random.default_rng(0))
    assert found.value == 0.3
    assert found.standard_error == pytest.approx(0.0458, rel=0.06)
    assert found.low == pytest.approx(0.3 - 1.96 * 0.0458, abs=0.015)


def test_the_resampled_error_of_a_word_error_rate_agrees_with_its_formula():
    draw = np.random.default_rng(1)
    said = [" ".join("abcd"[: draw.integers(1, 5)]) for _ in range(200)]
    heard = [text if draw.random() < 0.6 else "x" for text in said]
    rate = word_error_rate(said, heard)
    found = resampled(rate.items, np.random.default_rng(0))
    assert found.value == pytest.approx(rate.value)
    assert found.standard_error == pytest.approx(rate.standard_error, rel=0.08)


def test_the_same_seed_gives_the_same_interval():
    assert resampled(share(HITS).items, np.random.default_rng(3)) == resampled(
        share(HITS).items, np.random.default_rng(3)
    )


def test_pairing_sees_a_difference_that_two_separate_intervals_hide():
    # the second model answers the same questions and eight more: 30 % and 38 %, intervals of +-9 %
    better = [True] * 38 + [False] * 62
    found = compared(share(HITS).items, share(better).items, np.random.default_rng(0))
    assert found.value == pytest.approx(0.08)
    # eight of a hundred items differ, all one way: sqrt(.08 * .92 / 100) = .0271
    assert found.standard_error == pytest.approx(0.0271, rel=0.08)
    assert found.excludes_zero


def test_equal_models_do_not_differ():
    found = compared(share(HITS).items, share(HITS).items, np.random.default_rng(0))
    assert (found.value, found.low, found.high) == (0.0, 0.0, 0.0)
    assert not found.excludes_zero


def test_the_spread_over_seeds_is_the_sample_deviation():
    # deviations -.1, 0, .1: sqrt((.01 + .01) / 2) = .1
    assert spread([0.4, 0.5, 0.6]) == (pytest.approx(0.5), pytest.approx(0.1))
    assert spread([0.4]) == (0.4, None)


def test_what_cannot_be_compared_is_refused():
    with pytest.raises(DataError, match="the same items, got 2 and 3"):
        compared([(1, 1)] * 2, [(1, 1)] * 3, np.random.default_rng(0))
    with pytest.raises(DataError, match="at least two items, got 1"):
        resampled([(1, 1)], np.random.default_rng(0))
    with pytest.raises(DataError, match="at least one value"):
        spread([])
