"""Rows that say which stream they come from: 0 the current stage, k the k-th replay source."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

SOURCE_COLUMN = "slm_source"
"""Column of a row, and key of a collated batch: LongTensor ``(batch,)``."""


def marked(row: Mapping[str, Any], source: int) -> dict[str, Any]:
    """Return a row with the number of its stream beside its other columns."""
    return {**row, SOURCE_COLUMN: source}


class SourcedDataset(torch.utils.data.Dataset[Any]):
    """Rows in the order they have, each with the number of its stream.

    Args:
        rows: Anything with ``len`` and integer indexing that gives mappings.
        sources_N: Number of the stream of each row.
    """

    def __init__(self, rows: Any, sources_N: Sequence[int] | np.ndarray) -> None:
        self.rows, self.sources_N = rows, np.asarray(sources_N, dtype=np.int64)
        assert len(rows) == len(self.sources_N), f"{len(rows)} rows, {len(self.sources_N)} streams"

    def __len__(self) -> int:
        return len(self.sources_N)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return marked(self.rows[int(index)], int(self.sources_N[index]))
