"""Drawing and mixing: pure functions of seed, source and epoch."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from slm_plugin.data.mixing import MixedDataset, Source, draw, quota, spread, stream_probabilities

seeds = st.integers(0, 2**31 - 1)
names = st.text(min_size=1, max_size=8)


@pytest.mark.parametrize(
    ("ratio", "n_current", "expected"),
    # .29 * 100 is 28.999999999999996 in binary and must still be 29
    [(0.05, 1000, 50), (0.05, 999, 49), (0.29, 100, 29), (0.0, 100, 0), (2.5, 3, 7), (0.05, 19, 0)],
)
def test_the_quota_is_the_floor_of_ratio_times_rows(ratio, n_current, expected):
    assert quota(ratio, n_current) == expected


@given(n_pool=st.integers(1, 50), n_rows=st.integers(0, 200), seed=seeds, name=names)
def test_no_row_is_drawn_again_before_all_were_drawn(n_pool, n_rows, seed, name):
    counts = np.bincount(draw(n_pool, n_rows, seed, name), minlength=n_pool)
    assert counts.sum() == n_rows
    assert counts.max() - counts.min() <= 1


@given(n_pool=st.integers(1, 40), n_rows=st.integers(1, 40), epochs=st.integers(1, 6), seed=seeds, name=names)
def test_epochs_together_are_one_long_draw(n_pool, n_rows, epochs, seed, name):
    parts = [draw(n_pool, n_rows, seed, name, epoch) for epoch in range(epochs)]
    assert np.concatenate(parts).tolist() == draw(n_pool, n_rows * epochs, seed, name).tolist()


@given(seed=seeds, name=names)
def test_the_same_seed_and_name_give_the_same_rows(seed, name):
    assert draw(30, 12, seed, name, 3).tolist() == draw(30, 12, seed, name, 3).tolist()


def test_other_seeds_and_other_names_give_other_rows():
    drawn = {tuple(draw(1000, 10, seed, name)) for seed in (1, 2) for name in ("asr", "tts")}
    assert len(drawn) == 4


def test_stream_probabilities_are_ratio_over_one_plus_their_sum():
    # .2 and .3: 1/1.5, .2/1.5, .3/1.5
    assert stream_probabilities([0.2, 0.3]) == pytest.approx([1 / 1.5, 0.2 / 1.5, 0.3 / 1.5])
    assert sum(stream_probabilities([0.05, 0.05, 0.05])) == pytest.approx(1)


def mixture():
    pool, other = [f"p{i}" for i in range(10)], [f"o{i}" for i in range(10)]
    sources = [Source("pool", pool, 4, "epoch"), Source("other", other, 3, "once")]
    return MixedDataset([f"c{i}" for i in range(5)], sources, seed=1)


def test_a_mixture_is_the_current_rows_followed_by_the_drawn_ones():
    mixed = mixture()
    rows = [mixed[index] for index in range(len(mixed))]
    assert rows[:5] == ["c0", "c1", "c2", "c3", "c4"]
    assert [row[0] for row in rows[5:]] == ["p"] * 4 + ["o"] * 3
    with pytest.raises(IndexError):
        mixed[len(rows)]


def test_a_new_epoch_redraws_only_the_sources_that_ask_for_it():
    mixed = mixture()
    first = [mixed[index] for index in range(len(mixed))]
    mixed.set_epoch(1)
    second = [mixed[index] for index in range(len(mixed))]
    assert set(first[5:9]).isdisjoint(second[5:9])
    assert first[9:] == second[9:]


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_any_number_of_loader_workers_sees_the_same_epoch(workers):
    mixed = mixture()
    loader = torch.utils.data.DataLoader(
        mixed,
        batch_size=None,
        num_workers=workers,
        persistent_workers=workers > 0,
        multiprocessing_context="fork" if workers else None,
    )
    for epoch in (0, 1, 2):
        mixed.set_epoch(epoch)
        assert list(loader) == [mixed[index] for index in range(len(mixed))]


def test_streams_are_spread_evenly_and_keep_their_own_order():
    # places of the first stream .125 .375 .625 .875, of the second .25 .75
    assert spread([4, 2]).tolist() == [0, 1, 0, 0, 1, 0]
    assert spread([3, 0]).tolist() == [0, 0, 0]
    assert spread([0, 2]).tolist() == [1, 1]


@given(st.lists(st.integers(0, 60), min_size=1, max_size=4))
def test_no_part_of_a_spread_sequence_lacks_a_stream(counts):
    streams = spread(counts)
    assert np.bincount(streams, minlength=len(counts)).tolist() == counts
    for stream, count in enumerate(counts):
        seen = np.cumsum(streams == stream)
        expected = np.arange(1, len(streams) + 1) * count / max(1, sum(counts))
        assert len(streams) == 0 or np.abs(seen - expected).max() <= len(counts)


@pytest.mark.parametrize("resample", ["once", "epoch"])
def test_without_shuffling_the_current_rows_keep_their_order(resample):
    source = Source("old", [f"old {n}" for n in range(9)], 4, resample)
    current = [f"new {n}" for n in range(8)]
    mixed = MixedDataset(current, [source], seed=3, keeps_order=True)
    assert mixed.in_order
    for epoch in range(3):
        mixed.set_epoch(epoch)
        rows = [mixed[n] for n in range(len(mixed))]
        assert [row for row in rows if row.startswith("new")] == current
        # one replayed row for two current ones
        assert [n for n, row in enumerate(rows) if row.startswith("old")] == [1, 4, 7, 10]
        assert [row for row in rows if row.startswith("old")] == [source.rows[n] for n in mixed.drawn()[0]]
