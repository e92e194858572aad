"""Replayed rows that are chosen before any is tokenised."""

from __future__ import annotations

import numpy as np
import pytest
from datasets import Dataset
from hypothesis import given
from hypothesis import strategies as st

from slm_plugin.data.mixing import draw, shuffled_passes
from slm_plugin.data.planned import PlannedRows, RowPlan


def test_rows_keep_the_numbers_that_they_have_in_the_whole_source():
    # 3 of 10 rows are there
    rows = PlannedRows(Dataset.from_dict({"x": [20, 50, 90]}), np.array([2, 5, 9]), 10)
    assert len(rows) == 10
    assert [rows[number]["x"] for number in (9, 2, 5, 2)] == [90, 20, 50, 20]
    assert rows.select([5, 9, 5])["x"][:] == [50, 90, 50]


@pytest.mark.parametrize("number", [0, 3, 10])
def test_a_row_outside_the_plan_is_an_error_of_ours(number):
    rows = PlannedRows(Dataset.from_dict({"x": [20, 50]}), np.array([2, 5]), 10)
    with pytest.raises(AssertionError, match="outside the plan"):
        rows[number]


@given(st.integers(1, 50), st.integers(0, 120), st.integers(1, 5), st.integers(0, 3))
def test_a_plan_holds_every_row_that_is_drawn_once_or_in_any_epoch(n_pool, n_rows, n_epochs, seed):
    plan = RowPlan(lambda n: shuffled_passes(n, 0, n_rows * n_epochs, seed, "x"))
    usable = np.arange(0, 3 * n_pool, 3)
    places = plan.choose(usable)
    numbers = np.arange(n_pool) if places is None else places // 3
    drawn = [draw(n_pool, n_rows, seed, "x", epoch) for epoch in range(n_epochs)]
    assert set(np.concatenate(drawn).tolist()) <= set(numbers.tolist())
    # no more than is drawn, but for one row that shows the columns
    assert len(numbers) <= max(1, n_rows * n_epochs)


def test_a_source_without_usable_rows_is_left_to_the_host():
    assert RowPlan(lambda n: np.arange(n)).choose(np.zeros(0, dtype=np.int64)) is None
