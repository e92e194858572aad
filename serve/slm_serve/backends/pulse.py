"""Waits for an engine that end when the engine has: vLLM lets them wait for ever where its server is told to stop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from slm_plugin.errors import EngineError

PULSE_S = 0.25


class Pulse:
    """Feels an engine's pulse for as long as anybody works with it.

    Args:
        alive: Tells whether the engine runs.
    """

    def __init__(self, alive: Callable[[], Awaitable[bool]]) -> None:
        self._alive = alive
        self._working = 0
        self._task: asyncio.Task[None] | None = None
        self._waits: set[asyncio.Timeout] = set()

    @asynccontextmanager
    async def work(self) -> AsyncIterator[None]:
        """Work with the engine."""
        self._working += 1
        if self._task is None:
            self._task = asyncio.create_task(self._feel())
        try:
            yield
        finally:
            self._working -= 1
            if self._working == 0:
                self._task.cancel()
                self._task = None

    @asynccontextmanager
    async def wait(self) -> AsyncIterator[None]:
        """Wait for the engine, within :meth:`work`.

        Raises:
            EngineError: It has ended meanwhile.
        """
        # a time that never comes, until it is set: cheaper for each token than a task
        limit = asyncio.timeout(None)
        try:
            async with limit:
                self._waits.add(limit)
                try:
                    yield
                finally:
                    self._waits.discard(limit)
        except TimeoutError:
            if limit.expired():
                raise EngineError("the engine has ended.") from None
            raise

    async def _feel(self) -> None:
        while True:
            await asyncio.sleep(PULSE_S)
            if not await self._alive():
                waits, self._waits = self._waits, set()
                for limit in waits:
                    limit.reschedule(asyncio.get_running_loop().time())
