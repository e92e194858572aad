"""Calls of many requests run together in worker threads.

While a batch runs, further calls gather and make up the next one, so a lone call never waits for company.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, NamedTuple, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


class _Call(NamedTuple, Generic[Item, Result]):
    item: Item
    result: asyncio.Future[Result]


class Batcher(Generic[Item, Result]):
    """Awaitable calls, gathered to batches; of one event loop at a time.

    Args:
        run: Does the work of a batch: takes its items and returns as many results, in order; an
            exception among the results goes to the call that it belongs to. Blocking.
        name: Of the threads.
        threads: Batches that run at once.
        most: Largest batch.
        waiting: Calls that may wait; with more, callers wait to be let in, in their order.
    """

    def __init__(
        self,
        run: Callable[[Sequence[Item]], Sequence[Result | Exception]],
        name: str,
        threads: int = 1,
        most: int = 32,
        waiting: int = 256,
    ) -> None:
        self._run = run
        self._most = most
        self._n_threads = threads
        self._waiting = waiting
        self._loop: asyncio.AbstractEventLoop | None = None
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix=name)
        self._queue: asyncio.Queue[_Call[Item, Result]] = asyncio.Queue(waiting)
        self._lanes: list[asyncio.Task[None]] = []

    @property
    def n_waiting(self) -> int:
        """Calls that wait for a thread."""
        return self._queue.qsize()

    async def __call__(self, item: Item) -> Result:
        """Return the result for one item; a call that is cancelled while it waits is not run."""
        loop = asyncio.get_running_loop()
        if loop is not self._loop:
            # lanes, and calls that waited, ended with the loop before
            self._loop, self._queue = loop, asyncio.Queue(self._waiting)
            self._lanes = [loop.create_task(self._lane()) for _ in range(self._n_threads)]
        call = _Call[Item, Result](item, loop.create_future())
        await self._queue.put(call)
        return await call.result

    async def close(self) -> None:
        """End the threads behind what they run now; calls that wait are cancelled."""
        for lane in self._lanes:
            lane.cancel()
        await asyncio.gather(*self._lanes, return_exceptions=True)
        while not self._queue.empty():
            self._queue.get_nowait().result.cancel()
        self._pool.shutdown(wait=True, cancel_futures=True)

    async def _lane(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            batch = [await self._queue.get()]
            while len(batch) < self._most and not self._queue.empty():
                batch.append(self._queue.get_nowait())
            wanted = [call for call in batch if not call.result.cancelled()]
            if not wanted:
                continue
            results: Sequence[Result | Exception]
            try:
                results = await loop.run_in_executor(self._pool, self._run, [call.item for call in wanted])
            except asyncio.CancelledError:
                for call in wanted:
                    call.result.cancel()
                raise
            except Exception as error:
                results = [error] * len(wanted)
            for call, result in zip(wanted, results, strict=True):
                # the caller may have left meanwhile
                if call.result.done():
                    continue
                if isinstance(result, Exception):
                    call.result.set_exception(result)
                else:
                    call.result.set_result(result)
