"""Replay ratios that change over a training: which stream each position of it takes its row from.

The training is one sequence of positions. At progress t the source s has the weight
``w_s(t) = ratio_s * factor_s(t)`` beside the current stage's 1, so its share of the positions is
``w_s(t) / (1 + sum w(t))``. Positions are filled so that after each of them every stream was used as
often as its shares so far add up to, less than one row off.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from slm_plugin.data.mixing import MixedDataset, Source, shuffled_passes
from slm_plugin.records import RatioSchedule

_CURRENT = ""
"""Name that the current stage is shuffled under; no data set has it."""

_ROUNDING = 1e-9


def factor(schedule: RatioSchedule | None, progress_T: np.ndarray) -> np.ndarray:
    """Return the factor on a ratio at each progress t, ``(T,)``.

    ``linear``: ``start + t (end - start)``; ``cosine``: ``end + (start - end) (1 + cos(pi t)) / 2``;
    ``step``: ``start`` where ``t < at``, else ``end``.

    Args:
        schedule: The schedule; None for a factor of 1.
        progress_T: Progress, each in [0, 1].
    """
    if schedule is None:
        return np.ones_like(progress_T)
    start, end = schedule.start, schedule.end
    if schedule.shape == "linear":
        return np.asarray(start + progress_T * (end - start))
    if schedule.shape == "cosine":
        return np.asarray(end + (start - end) * (1 + np.cos(np.pi * progress_T)) / 2)
    return np.where(progress_T < schedule.at, start, end)


def shares(ratios: Sequence[float], schedules: Sequence[RatioSchedule | None], progress_T: np.ndarray) -> np.ndarray:
    """Return the share of each stream at each progress, the current stage first.

    Returns:
        ``(T, 1 + sources)``; rows add up to 1.
    """
    weights = [ratio * factor(schedule, progress_T) for ratio, schedule in zip(ratios, schedules, strict=True)]
    weights_TS = np.stack([np.ones_like(progress_T), *weights], axis=1)
    return np.asarray(weights_TS / weights_TS.sum(axis=1, keepdims=True))


def assign(shares_TS: np.ndarray) -> np.ndarray:
    """Assign each position to one stream, so that every count stays less than 1 from the sum of its shares.

    The k-th row of a stream may come as soon as its shares add up to more than k - 1 and must come
    before they add up to more than k; among the rows that may come, the most urgent one comes.

    Source: R. Tijdeman, The chairman assignment problem, Discrete Mathematics 32 (1980).

    Args:
        shares_TS: Shares of S streams at T positions; rows add up to 1.

    Returns:
        ``(T,)`` stream of each position.
    """
    n_positions, n_streams = shares_TS.shape
    sums_TS = np.cumsum(shares_TS, axis=0)
    releases, deadlines = [], []
    for stream in range(n_streams):
        n_rows = int(np.ceil(sums_TS[-1, stream] - _ROUNDING)) if n_positions else 0
        numbers, sums_T = np.arange(n_rows), sums_TS[:, stream]
        # no row is left after the last one: it would come behind all positions
        releases.append([*np.searchsorted(sums_T, numbers + _ROUNDING, side="right").tolist(), n_positions])
        deadlines.append([*np.searchsorted(sums_T, numbers + 1 - _ROUNDING).tolist(), n_positions])
    counts = [0] * n_streams
    release, deadline = [found[0] for found in releases], [found[0] for found in deadlines]
    chosen_T = [0] * n_positions
    for position in range(n_positions):
        best, stream = n_positions + 1, -1
        for number in range(n_streams):
            if release[number] <= position and deadline[number] < best:
                best, stream = deadline[number], number
        chosen_T[position] = stream
        counts[stream] += 1
        release[stream], deadline[stream] = releases[stream][counts[stream]], deadlines[stream][counts[stream]]
    return np.asarray(chosen_T, dtype=np.int16)


class ScheduledDataset(MixedDataset):
    """One epoch after the other of a training whose replay ratios change; visited in order.

    The rows of a stream are shuffled passes that go on from epoch to epoch: over the current stage, over
    the rows drawn once, or over the whole source where it is resampled. Rows chosen by surprise for an
    epoch are skipped within it. With ``keeps_order`` the current stage is not shuffled.

    Args:
        current: Rows of the current stage.
        sources: What to mix in; their ``n_rows`` set the length of an epoch.
        seed: The training seed.
        ratios: Ratio of each source.
        schedules: Schedule of each source, or None.
        n_positions: Positions in the whole training, from the length of an epoch.
        mark: Whether rows say which stream they come from.
        keeps_order: Whether the current stage keeps the order of its rows.
    """

    def __init__(
        self,
        current: Any,
        sources: Sequence[Source],
        seed: int,
        ratios: Sequence[float],
        schedules: Sequence[RatioSchedule | None],
        n_positions: Callable[[int], int],
        mark: bool = False,
        keeps_order: bool = False,
    ) -> None:
        super().__init__(current, sources, seed, mark, keeps_order)
        self.n_positions = n_positions(len(self))
        self.n_epochs = -(-self.n_positions // len(self))
        # one epoch more than is visited: the urgency of the last rows depends on what would follow
        progress_T = np.minimum(1.0, np.arange((self.n_epochs + 1) * len(self)) / self.n_positions)
        # a source too small for a single row has no share
        used = [ratio if source.n_rows else 0.0 for ratio, source in zip(ratios, sources, strict=True)]
        self.streams_T = assign(shares(used, schedules, progress_T))
        self._plan: tuple[tuple[int, int], np.ndarray, np.ndarray] | None = None

    @property
    def in_order(self) -> bool:
        """Always: the schedule is an order, whether the current stage's rows are shuffled in it or not."""
        return True

    def counts(self) -> dict[str, int]:
        """Return how many positions of the whole training each source gets."""
        counts = np.bincount(self.streams_T[: self.n_positions], minlength=len(self.sources) + 1)
        return {source.name: int(n) for source, n in zip(self.sources, counts[1:], strict=True)}

    def locate(self, index: int) -> tuple[int, int]:
        """Return the stream of a position in the epoch in force, and the row's number in it."""
        version = self.version
        if self._plan is None or self._plan[0] != version:
            self._plan = (version, *self._epoch_plan(version[0]))
        return int(self._plan[1][index]), int(self._plan[2][index])

    def _epoch_plan(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        # a training that was given more epochs than it was planned with repeats the last one's pattern
        planned = min(epoch, self.n_epochs)
        streams_L = self.streams_T[planned * len(self) : (planned + 1) * len(self)]
        n_streams = len(self.sources) + 1
        before = np.bincount(self.streams_T[: planned * len(self)], minlength=n_streams)
        within = np.bincount(streams_L, minlength=n_streams)
        before = before + (epoch - planned) * within
        rows_L = np.zeros(len(self), dtype=np.int64)
        for stream in range(n_streams):
            first, last = int(before[stream]), int(before[stream] + within[stream])
            if last > first:
                rows_L[streams_L == stream] = self._stream_rows(stream, first, last, epoch)
        return streams_L, rows_L

    def _stream_rows(self, stream: int, first: int, last: int, epoch: int) -> np.ndarray:
        """Return the rows that a stream gives as its ``first``-th up to its ``last``-th."""
        if stream == 0 and self.keeps_order:
            return np.arange(first, last, dtype=np.int64) % len(self.current)
        if stream == 0:
            return shuffled_passes(len(self.current), first, last, self.seed, _CURRENT)
        source = self.sources[stream - 1]
        if source.resample == "epoch" and source.surprise is None:
            return shuffled_passes(len(source.rows), first, last, self.seed, source.name)
        drawn = self.drawn()[stream - 1]
        if source.surprise is None:
            # a source smaller than the draw is in it several times: passes keep that even at every moment
            drawn = np.unique(drawn)
        if source.resample == "once":
            order = shuffled_passes(len(drawn), first, last, self.seed, source.name)
        else:
            order = shuffled_passes(len(drawn), 0, last - first, self.seed, f"{source.name}@{epoch}")
        return np.asarray(drawn[order])
