"""Read the engine without waiting for anybody; deltas that pile up meanwhile become one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

import anyio

from slm_serve.backends.protocol import Delta


class Reader:
    """Holds what an engine said until it is taken.

    Args:
        upstream: The engine's deltas; closed at the end.
        news: Set whenever there is something to take, or the engine has ended.
    """

    def __init__(self, upstream: AsyncGenerator[Delta, None], news: asyncio.Event) -> None:
        self._upstream = upstream
        self._news = news
        self._waiting: list[Delta] = []
        # httpcore opens and closes its connections in anyio's shields, which a task's own cancel() breaks: the
        # connection would stay in its pool for ever
        self._work = anyio.CancelScope()
        self._task = asyncio.create_task(self._read())
        self._task.add_done_callback(lambda _: news.set())

    @property
    def done(self) -> bool:
        """Whether everything was taken, and the engine did not fail."""
        return self._task.done() and not self._waiting and self._task.exception() is None

    def take(self) -> Delta | None:
        """Return what came since the last call as one delta; None where nothing did.

        Raises:
            Exception: What the engine raised, once everything in front of it was taken.
        """
        if not self._waiting:
            if self._task.done():
                self._task.result()
            return None
        batch, self._waiting = self._waiting, []
        if self._task.done():
            self._news.set()
        return Delta([i for delta in batch for i in delta.ids], batch[-1].finish_reason)

    async def stop(self) -> None:
        """Close the engine's deltas, which ends its work."""
        self._work.cancel()
        # unlike gather(), this does not cancel the task where whoever waits is cancelled
        await asyncio.wait((self._task,))
        if not self._task.cancelled():
            self._task.exception()

    async def _read(self) -> None:
        with self._work:
            async with aclosing(self._upstream):
                async for delta in self._upstream:
                    self._waiting.append(delta)
                    self._news.set()
