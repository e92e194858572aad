from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from contracts.covering import covering_rows, every_row, pairs_of


def test_four_rows_cover_three_switches():
    # the classic orthogonal array: 4 rows instead of 8
    assert len(covering_rows({"a": [0, 1], "b": [0, 1], "c": [0, 1]})) == 4


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(1, 3), min_size=2, max_size=5))
def test_every_pair_of_values_occurs_and_rows_repeat_from_run_to_run(sizes):
    factors = {f"factor{position}": list(range(size)) for position, size in enumerate(sizes)}
    rows = covering_rows(factors)
    assert set().union(*map(pairs_of, rows)) == set().union(*map(pairs_of, every_row(factors)))
    assert rows == covering_rows(factors)
    assert len(rows) <= len(every_row(factors))
