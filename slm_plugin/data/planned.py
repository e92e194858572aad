"""Rows of a replay source that a training will ever visit: chosen by number before any of them is tokenised."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np


class PlannedRows:
    """A source of which only some rows are there, under the numbers that they have in the whole source.

    Args:
        rows: The rows that are there: anything with ``len``, integer indexing and, for ``select``, ``select``.
        numbers_N: ``(N,)`` int64, their numbers in the whole source, ascending.
        length: Rows of the whole source.
    """

    def __init__(self, rows: Any, numbers_N: np.ndarray, length: int) -> None:
        assert len(rows) == len(numbers_N), f"{len(rows)} rows, {len(numbers_N)} numbers"
        self.rows, self.numbers_N, self.length = rows, numbers_N, length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, number: int) -> Any:
        return self.rows[int(self._places(np.asarray([number]))[0])]

    def select(self, numbers: Sequence[int] | np.ndarray) -> Any:
        """Return the rows of these numbers, as the ``select`` of the rows returns them.

        Args:
            numbers: ``(n,)`` numbers in the whole source.
        """
        return self.rows.select(self._places(np.asarray(numbers, dtype=np.int64)))

    def _places(self, numbers_N: np.ndarray) -> np.ndarray:
        places_N = np.searchsorted(self.numbers_N, numbers_N)
        assert np.array_equal(np.take(self.numbers_N, places_N, mode="clip"), numbers_N), "a row outside the plan"
        return places_N


class RowPlan:
    """Which rows of a source to tokenise, once it is known how many rows there are.

    Args:
        wanted: From the number of rows that a source has to the ``(n,)`` numbers that a training visits.
    """

    def __init__(self, wanted: Callable[[int], np.ndarray]) -> None:
        self._wanted = wanted
        self.numbers_N: np.ndarray | None = None
        self.length = 0

    def choose(self, usable_N: np.ndarray) -> np.ndarray | None:
        """Return the places of the rows to tokenise.

        Args:
            usable_N: ``(N,)`` places of the rows that are neither empty nor invalid, ascending.

        Returns:
            ``(n,)`` int64, ascending; None if that is all of them.
        """
        self.length = len(usable_N)
        if self.length == 0:
            return None
        numbers_N = np.unique(self._wanted(self.length))
        if len(numbers_N) == 0:
            # one row shows the columns of a source that gives none
            numbers_N = np.zeros(1, dtype=np.int64)
        if len(numbers_N) == self.length:
            return None
        self.numbers_N = numbers_N
        return np.asarray(usable_N[numbers_N])
