"""Schedules of replay ratios: factors, shares, exact counts and the rows of every epoch."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from slm_plugin.data.mixing import Source, Surprise
from slm_plugin.data.schedule import ScheduledDataset, assign, factor, shares
from slm_plugin.records import RatioSchedule

LINEAR = RatioSchedule("linear", 1.0, 0.2)


@pytest.mark.parametrize(
    ("shape", "progress", "expected"),
    [
        # 1 + .25 (.2 - 1) = .8
        ("linear", 0.25, 0.8),
        ("linear", 1.0, 0.2),
        # .2 + .8 (1 + cos(pi / 4)) / 2
        ("cosine", 0.25, 0.2 + 0.4 * (1 + math.sqrt(0.5))),
        ("cosine", 0.5, 0.6),
        ("step", 0.49, 1.0),
        ("step", 0.5, 0.2),
    ],
)
def test_the_factor_follows_the_shape(shape, progress, expected):
    assert factor(RatioSchedule(shape, 1.0, 0.2, 0.5), np.array([progress]))[0] == pytest.approx(expected)


def test_shares_are_the_ratio_over_one_plus_their_sum_at_each_moment():
    # at t = 0: .5 and .25 of 1.75; at t = 1: .5 * .2 = .1 and .25 of 1.35
    found = shares([0.5, 0.25], [LINEAR, None], np.array([0.0, 1.0]))
    assert found[0] == pytest.approx([1 / 1.75, 0.5 / 1.75, 0.25 / 1.75])
    assert found[1] == pytest.approx([1 / 1.35, 0.1 / 1.35, 0.25 / 1.35])


@given(
    ratios=st.lists(st.floats(0, 3), min_size=1, max_size=6),
    shape=st.sampled_from(["linear", "cosine", "step"]),
    start=st.floats(0, 3),
    end=st.floats(0, 3),
    n=st.integers(1, 400),
)
def test_after_every_position_each_count_is_less_than_one_row_off(ratios, shape, start, end, n):
    schedules = [RatioSchedule(shape, start, end, 0.3) if k % 2 == 0 else None for k in range(len(ratios))]
    shares_TS = shares(ratios, schedules, np.arange(n) / n)
    streams_T = assign(shares_TS)
    counts_TS = np.cumsum(streams_T[:, None] == np.arange(len(ratios) + 1), axis=0)
    assert np.abs(counts_TS - np.cumsum(shares_TS, axis=0)).max() < 1 + 1e-6


@given(seed=st.integers(0, 1000), n_streams=st.integers(2, 8), n=st.integers(1, 300))
def test_the_same_holds_for_shares_without_any_order(seed, n_streams, n):
    weights = np.random.default_rng(seed).pareto(0.5, (n, n_streams))
    shares_TS = weights / weights.sum(axis=1, keepdims=True)
    counts_TS = np.cumsum(assign(shares_TS)[:, None] == np.arange(n_streams), axis=0)
    # the very last rows may still be waiting for what would follow: there the bound is on one side only
    gaps = counts_TS - np.cumsum(shares_TS, axis=0)
    assert np.abs(gaps).max() < 1 + 1e-6


def dataset(schedule=LINEAR, resample="once", n_epochs=3, surprise=None, mark=False, seed=1):
    sources = [
        Source("pool", [f"p{i}" for i in range(30)], 10, resample, surprise),
        Source("tiny", [f"t{i}" for i in range(2)], 5, "once"),
    ]
    current = [{"row": f"c{i}"} for i in range(20)] if mark else [f"c{i}" for i in range(20)]
    return ScheduledDataset(
        current, sources, seed, [0.5, 0.25], [schedule, None], lambda length: n_epochs * length, mark
    )


def epoch(mixed, number):
    mixed.set_epoch(number)
    return [mixed[index] for index in range(len(mixed))]


def test_an_epoch_keeps_its_length_and_replay_thins_out():
    mixed = dataset()
    counts = [sum(row[0] == "p" for row in epoch(mixed, number)) for number in range(3)]
    assert len(mixed) == 35
    # shares of 105 positions, .5 f / (1.25 + .5 f) summed over each epoch: 9.0, 6.8 and 4.1 rows
    ideal = [sum(0.5 * f / (1.25 + 0.5 * f) for f in 1 - 0.8 * np.arange(35 * e, 35 * e + 35) / 105) for e in range(3)]
    assert np.abs(np.cumsum(counts) - np.cumsum(ideal)).max() < 1
    assert counts[0] > counts[2] > 0
    assert mixed.counts()["pool"] == sum(counts)


def test_rows_of_the_current_stage_come_in_whole_passes():
    mixed = dataset()
    seen = [row for number in range(3) for row in epoch(mixed, number) if row[0] == "c"]
    for start in range(0, len(seen) - 20, 20):
        assert len(set(seen[start : start + 20])) == 20


@pytest.mark.parametrize(("resample", "n_different"), [("once", 10), ("epoch", 20)])
def test_once_stays_with_the_rows_drawn_and_epoch_goes_on_to_unseen_ones(resample, n_different):
    mixed = dataset(resample=resample)
    seen = [row for number in range(3) for row in epoch(mixed, number) if row[0] == "p"]
    assert len(seen) == 20
    assert len(set(seen)) == n_different


def test_rows_chosen_by_surprise_are_the_only_ones_of_their_source():
    mixed = dataset(surprise=Surprise(4, 1.0))
    mixed.choose(0, np.arange(20, 30))
    assert {row for row in epoch(mixed, 0) if row[0] == "p"} <= {f"p{i}" for i in range(20, 30)}
    mixed.choose(0, np.arange(10))
    assert {row for row in epoch(mixed, 0) if row[0] == "p"} <= {f"p{i}" for i in range(10)}


def test_the_order_is_a_function_of_the_seed():
    assert epoch(dataset(), 1) == epoch(dataset(), 1)
    assert epoch(dataset(), 1) != epoch(dataset(seed=2), 1)


def test_a_source_without_a_row_gets_no_position():
    empty = Source("none", ["x"], 0, "once")
    mixed = ScheduledDataset(list("abc"), [empty], 0, [0.2], [LINEAR], lambda length: 9 * length)
    assert mixed.counts() == {"none": 0}
    assert sorted(epoch(mixed, 8)) == ["a", "b", "c"]


def test_an_epoch_more_than_planned_still_has_rows():
    mixed = dataset(n_epochs=2)
    assert len(epoch(mixed, 5)) == 35


@pytest.mark.parametrize("workers", [0, 2])
def test_any_number_of_loader_workers_sees_the_same_order(workers):
    mixed = dataset(resample="epoch")
    loader = torch.utils.data.DataLoader(
        mixed,
        batch_size=None,
        num_workers=workers,
        persistent_workers=workers > 0,
        multiprocessing_context="fork" if workers else None,
    )
    for number in (0, 1, 2):
        mixed.set_epoch(number)
        assert list(loader) == [mixed[index] for index in range(len(mixed))]


@pytest.mark.parametrize("resample", ["once", "epoch"])
def test_a_source_smaller_than_its_draw_is_used_evenly_at_every_moment(resample):
    source = Source("tiny", ["t0", "t1", "t2"], 10, resample)
    mixed = ScheduledDataset(list(range(10)), [source], 3, [1.0], [LINEAR], lambda length: 2 * length)
    seen = [row for number in range(2) for row in epoch(mixed, number) if isinstance(row, str)]
    for end in range(1, len(seen)):
        counts = [seen[:end].count(row) for row in source.rows]
        assert max(counts) - min(counts) <= 1


@pytest.mark.parametrize("resample", ["once", "epoch"])
def test_without_shuffling_a_schedule_keeps_the_order_of_the_current_rows(resample):
    source = Source("old", [f"old {n}" for n in range(5)], 5, resample)
    current = list(range(10))
    mixed = ScheduledDataset(
        current, [source], 3, [0.5], [LINEAR], lambda length: 2 * length, mark=False, keeps_order=True
    )
    rows = []
    for epoch in range(2):
        mixed.set_epoch(epoch)
        rows += [mixed[n] for n in range(len(mixed))]
    seen = [row for row in rows if isinstance(row, int)]
    # one pass after the other, over the epochs
    assert seen == [n % 10 for n in range(len(seen))]
    assert len(seen) == 30 - mixed.counts()["old"]
