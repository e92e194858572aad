"""Drawing rows of earlier tasks and mixing them into the current one.

Everything here is a pure function of the seed, the source's name and the epoch, so that every
process and every data-loader worker sees the same mixture.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from slm_plugin.data.sourced import marked


def quota(ratio: float, n_current: int) -> int:
    """Return ``floor(ratio * n_current)``, the rows to draw from a source.

    The product is rounded to 12 digits first, so that .29 x 100 is 29 and not 28.
    """
    return math.floor(round(ratio * n_current, 12))


def draw(n_pool: int, n_rows: int, seed: int, name: str, epoch: int = 0) -> np.ndarray:
    """Choose rows of a source without replacement until it is exhausted, then begin anew.

    The source is an endless sequence of shuffled passes; epoch ``e`` takes positions
    ``[e * n_rows, (e + 1) * n_rows)`` of it, so later epochs see the rows that earlier ones did not.

    Args:
        n_pool: Rows in the source.
        n_rows: Rows to draw.
        seed: The training seed.
        name: Name of the source; different sources are shuffled differently.
        epoch: Number of the epoch; 0 for a draw before training.

    Returns:
        ``(n_rows,)`` int64 row numbers.
    """
    return shuffled_passes(n_pool, epoch * n_rows, (epoch + 1) * n_rows, seed, name)


def shuffled_passes(n_pool: int, first: int, last: int, seed: int, name: str) -> np.ndarray:
    """Return positions ``[first, last)`` of an endless sequence of shuffled passes over ``n_pool`` rows.

    Returns:
        ``(last - first,)`` int64 row numbers.
    """
    passes = [
        np.random.default_rng([seed, zlib.crc32(name.encode()), number]).permutation(n_pool)
        for number in range(first // n_pool, -(-last // n_pool))
    ]
    if not passes:
        return np.zeros(0, dtype=np.int64)
    start = first - first // n_pool * n_pool
    return np.concatenate(passes)[start : start + last - first].astype(np.int64)


def spread(counts: Sequence[int]) -> np.ndarray:
    """Spread the rows of several streams evenly over one sequence, without changing the order within a stream.

    Row j of a stream of n rows has the place (j + 1/2) / n, and rows are sorted by place: counts of 4 and 2 give
    the streams 0, 1, 0, 0, 1, 0. Rows of equal place keep the order of their streams.

    Args:
        counts: Rows of each stream.

    Returns:
        ``(sum of counts,)`` int64 stream of each position.
    """
    streams_N = np.repeat(np.arange(len(counts)), counts)
    places_N = np.concatenate([(np.arange(n) + 0.5) / max(n, 1) for n in counts])
    return np.asarray(streams_N[np.argsort(places_N, kind="stable")], dtype=np.int64)


@dataclass(frozen=True)
class Surprise:
    """How rows are chosen by their loss.

    Attributes:
        candidates: Rows looked at per row drawn.
        temperature: Softness of the choice in nats; 0 takes the largest losses.
    """

    candidates: int
    temperature: float


@dataclass(frozen=True)
class Source:
    """Tokenised rows of an earlier task and how many of them to mix in.

    Attributes:
        name: Name of the data set.
        rows: Anything with ``len`` and integer indexing.
        n_rows: Rows to draw.
        resample: ``once`` or ``epoch``.
        surprise: How rows are chosen by their loss, from outside, through ``choose``; None for shuffles.
    """

    name: str
    rows: Any
    n_rows: int
    resample: str
    surprise: Surprise | None = None


class MixedDataset(torch.utils.data.Dataset[Any]):
    """The current stage's rows followed by drawn rows; ``epoch`` sources are drawn afresh by ``set_epoch``.

    Rows chosen by surprise are those of a uniform draw until ``choose`` says which.

    Args:
        current: Rows of the current stage.
        sources: What to mix in.
        seed: The training seed.
        mark: Whether rows say which stream they come from.
        keeps_order: Whether training visits the rows in their order. The current stage then keeps its own, and
            drawn rows are spread evenly among its rows.
    """

    def __init__(
        self, current: Any, sources: Sequence[Source], seed: int, mark: bool = False, keeps_order: bool = False
    ) -> None:
        self.current, self.sources, self.seed, self.mark = current, tuple(sources), seed, mark
        self.keeps_order = keeps_order
        counts = [len(current), *(source.n_rows for source in sources)]
        self.ends = np.cumsum(counts)
        # position -> index into the streams laid end to end: the inverse of sorting positions by stream
        self._places_N = np.argsort(np.argsort(spread(counts), kind="stable")) if keeps_order else None
        # shared memory: persistent data-loader workers must see a new epoch and new choices too
        self._epoch = torch.zeros(1, dtype=torch.int64).share_memory_()
        self._choices = torch.zeros(1, dtype=torch.int64).share_memory_()
        self._chosen = [
            torch.as_tensor(draw(len(s.rows), s.n_rows, seed, s.name)).share_memory_() if s.surprise else None
            for s in sources
        ]
        self._drawn: tuple[tuple[int, int], list[np.ndarray]] = ((-1, -1), [])

    @property
    def in_order(self) -> bool:
        """Whether the rows must be visited in their order, and not shuffled."""
        return self.keeps_order

    @property
    def version(self) -> tuple[int, int]:
        """The epoch in force, and how often rows were chosen."""
        return int(self._epoch[0]), int(self._choices[0])

    def set_epoch(self, epoch: int) -> None:
        """Draw the ``epoch`` sources for this epoch from now on."""
        self._epoch[0] = epoch

    def choose(self, number: int, rows_N: np.ndarray) -> None:
        """Set the rows of the source ``number``, one that is drawn by surprise, from now on."""
        chosen = self._chosen[number]
        assert chosen is not None, f"{self.sources[number].name} is not drawn by surprise"
        chosen.copy_(torch.as_tensor(rows_N))
        self._choices += 1

    def drawn(self) -> list[np.ndarray]:
        """Return the row numbers drawn from each source for the epoch in force, ``(n_rows,)`` int64 each."""
        version = self.version
        if self._drawn[0] != version:
            rows = [
                draw(len(s.rows), s.n_rows, self.seed, s.name, version[0] if s.resample == "epoch" else 0)
                if chosen is None
                else chosen.numpy().copy()
                for s, chosen in zip(self.sources, self._chosen, strict=True)
            ]
            self._drawn = (version, rows)
        return self._drawn[1]

    def locate(self, index: int) -> tuple[int, int]:
        """Return the stream of a position, 0 for the current stage, and the row's number in it."""
        if self._places_N is not None:
            index = int(self._places_N[index])
        part = int(np.searchsorted(self.ends, index, side="right"))
        if part == 0:
            return 0, int(index)
        return part, int(self.drawn()[part - 1][index - self.ends[part - 1]])

    def __len__(self) -> int:
        return int(self.ends[-1])

    def __getitem__(self, index: int) -> Any:
        if not 0 <= index < len(self):
            raise IndexError(index)
        stream, row = self.locate(index)
        found = self.current[row] if stream == 0 else self.sources[stream - 1].rows[row]
        return marked(found, stream) if self.mark else found


def stream_probabilities(ratios: Sequence[float]) -> list[float]:
    """Return the probability of the current stage and of each source per draw of a stream.

    ``p_source = ratio / (1 + sum of ratios)``: ratios of .2 and .3 give 1/1.5, .2/1.5 and .3/1.5.
    """
    total = 1 + sum(ratios)
    return [1 / total, *(ratio / total for ratio in ratios)]
