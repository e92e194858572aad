"""Background tasks that do not end: an exception restarts the task after a pause, and is counted."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from slm_serve.ops.metrics import Metrics

FIRST_PAUSE_S = 1.0
LONGEST_PAUSE_S = 30.0
MOST_FAILURES = 8
"""Failures in a row after which a task counts as one that cannot be restarted; it is tried on all the same."""

SETTLED_S = 60.0
"""Seconds that a task must run for its failures to be forgotten."""

_LOG = logging.getLogger("slm_serve.background")


@dataclass
class _Work:
    run: Callable[[], Awaitable[None]]
    n_failures: int = 0


class Background:
    """Runs what must go on for as long as the server does.

    A task that raises is started again after 1 s, then 2, 4 ... 30 s. After :data:`MOST_FAILURES` failures in a row
    :attr:`alive` is false, which fails liveness, so that the supervisor of the process restarts it.

    Args:
        metrics: Counts the restarts.
        clock: Monotonic time in seconds.
    """

    def __init__(self, metrics: Metrics, clock: Callable[[], float] = time.monotonic) -> None:
        self._metrics = metrics
        self._clock = clock
        self._work: dict[str, _Work] = {}
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def alive(self) -> bool:
        """Whether every task runs, or was restarted in time."""
        return all(work.n_failures < MOST_FAILURES for work in self._work.values())

    def start(self, name: str, run: Callable[[], Awaitable[None]]) -> None:
        """Run something for ever.

        Args:
            name: In logs and metrics.
            run: Makes a new coroutine for each start.
        """
        self._work[name] = _Work(run)
        self._tasks.append(asyncio.create_task(self._forever(name, self._work[name]), name=name))

    async def stop(self) -> None:
        """End all tasks."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()
        self._work.clear()

    async def _forever(self, name: str, work: _Work) -> None:
        while True:
            began = self._clock()
            try:
                await work.run()
                why = "ended"
            except Exception as error:
                why = type(error).__name__
                _LOG.exception("a background task has failed", extra={"fields": {"task": name}})
            if self._clock() - began >= SETTLED_S:
                work.n_failures = 0
            work.n_failures += 1
            pause_s = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2 ** (work.n_failures - 1))
            self._metrics.task_restarts.labels(name).inc()
            _LOG.warning(
                "a background task is restarted", extra={"fields": {"task": name, "why": why, "in_s": pause_s}}
            )
            await asyncio.sleep(pause_s)
