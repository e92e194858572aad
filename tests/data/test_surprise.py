"""Choosing rows by their loss."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from slm_plugin.data.surprise import candidate_rows, choose_rows


@given(n_pool=st.integers(1, 60), n_rows=st.integers(0, 150), candidates=st.integers(1, 6), epoch=st.integers(0, 3))
def test_candidates_are_different_rows_and_enough(n_pool, n_rows, candidates, epoch):
    rows = candidate_rows(n_pool, n_rows, candidates, 0, "asr", epoch)
    assert len(set(rows.tolist())) == len(rows) == min(n_pool, candidates * (n_rows % n_pool))
    assert all(0 <= row < n_pool for row in rows)


@example(n_pool=2, n_rows=1, temperature=5e-324, seed=0)
@given(n_pool=st.integers(1, 40), n_rows=st.integers(0, 100), temperature=st.floats(0, 10), seed=st.integers(0, 2**31))
def test_every_row_is_drawn_equally_often_but_for_one(n_pool, n_rows, temperature, seed):
    rows = candidate_rows(n_pool, n_rows, 4, seed, "asr")
    losses = np.random.default_rng(seed).random(len(rows))
    chosen = choose_rows(n_pool, n_rows, rows, losses, temperature, seed, "asr")
    counts = np.bincount(chosen, minlength=n_pool)
    assert len(chosen) == n_rows
    assert counts.max() - counts.min() <= 1


def test_temperature_zero_takes_the_largest_losses_and_rows_without_an_answer_last():
    rows, losses = np.array([5, 3, 8, 1]), np.array([0.5, 2.0, math.nan, 1.0])
    assert choose_rows(10, 2, rows, losses, 0.0, 0, "asr").tolist() == [1, 3]
    assert choose_rows(10, 3, rows, losses, 0.0, 0, "asr").tolist() == [1, 3, 5]
    assert choose_rows(10, 3, rows, losses, 0.7, 0, "asr").tolist() == [1, 3, 5]


def test_rows_are_drawn_without_replacement_in_proportion_to_exp_of_loss_over_temperature():
    # weights exp(loss / .5): 1, e, e^2; P(first a, then b) = w_a / sum w_b / (sum - w_a)
    losses, temperature, n = np.array([0.0, 0.5, 1.0]), 0.5, 20_000
    weights = np.exp(losses / temperature)
    expected = {
        pair: sum(
            weights[a] / weights.sum() * weights[b] / (weights.sum() - weights[a]) for a, b in (pair, pair[::-1])
        )
        for pair in itertools.combinations(range(3), 2)
    }
    drawn = [tuple(choose_rows(9, 2, np.arange(3), losses, temperature, seed, "asr")) for seed in range(n)]
    for pair, probability in expected.items():
        error = 4 * math.sqrt(probability * (1 - probability) / n)
        assert drawn.count(pair) / n == pytest.approx(probability, abs=error)


def test_a_large_temperature_draws_evenly():
    losses = np.array([0.0, 5.0, 10.0, 20.0])
    counts = sum(
        np.bincount(choose_rows(9, 1, np.arange(4), losses, 1e6, seed, "asr"), minlength=4) for seed in range(8000)
    )
    # standard deviation sqrt(8000 / 4 * 3 / 4) = 39
    assert np.abs(counts - 2000).max() < 160


def test_another_epoch_looks_at_other_candidates():
    one, other = (set(candidate_rows(1000, 10, 4, 0, "asr", epoch).tolist()) for epoch in (0, 1))
    assert len(one & other) < 10
