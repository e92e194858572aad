"""Small sets of test rows in which every two choices meet."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

Row = dict[str, Any]


def pairs_of(row: Mapping[str, Any]) -> set[tuple[str, Any, str, Any]]:
    """Return every pair of choices that a row makes."""
    return {(one, row[one], other, row[other]) for one, other in itertools.combinations(sorted(row), 2)}


def every_row(factors: Mapping[str, Sequence[Any]]) -> list[Row]:
    """Return the full cross product of the factors' values."""
    return [dict(zip(factors, values, strict=True)) for values in itertools.product(*factors.values())]


def covering_rows(factors: Mapping[str, Sequence[Any]]) -> list[Row]:
    """Return rows in which every pair of values of two factors occurs, the same in every run.

    Greedy: the row of the cross product that holds most pairs not seen yet comes next.
    """
    rows = every_row(factors)
    open_pairs = set().union(*map(pairs_of, rows))
    chosen: list[Row] = []
    while open_pairs:
        best = max(rows, key=lambda row: len(pairs_of(row) & open_pairs))
        chosen.append(best)
        open_pairs -= pairs_of(best)
    return chosen
