"""One check of engine and vocoder for everybody: its result is shared, and it has a thread of its own."""

from __future__ import annotations

import asyncio
import logging
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

from slm_plugin.speech.protocol import Codec

if TYPE_CHECKING:
    from slm_serve.backends.protocol import Backend

CHECK_S = 5.0
"""Seconds in which the engine must answer and the vocoder must make sound."""

VOCODER_FRESH_S = 5.0
"""Seconds for which an answer of the vocoder is valid."""

_LOG = logging.getLogger("slm_serve.health")


@dataclass(frozen=True)
class Health:
    """Whether a request would be answered.

    Attributes:
        engine: Whether the engine answers.
        vocoder: Whether the vocoder makes sound.
    """

    engine: bool
    vocoder: bool


class HealthCheck:
    """Checks the engine and the vocoder at most once at a time.

    Probes cost work (a chunk of sound takes up to 100 ms of a processor), and anybody may request them. Concurrent
    requests therefore wait for one check, and a check never takes a thread from the answers.

    Args:
        backend: The engine.
        codec: Its vocoder is checked.
    """

    def __init__(self, backend: Backend, codec: Codec) -> None:
        self._backend = backend
        self._codec = codec
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="slm-health")
        self._check: asyncio.Task[Health] | None = None
        self._vocoder = (0.0, False)

    async def current(self) -> Health:
        """Return the state of both, from the check under way if there is one."""
        if self._check is None or self._check.done():
            self._check = asyncio.create_task(self._run())
        # a client that leaves must not end the check of the others
        return await asyncio.shield(self._check)

    def close(self) -> None:
        """End the thread."""
        if self._check is not None:
            self._check.cancel()
        self._pool.shutdown(wait=False, cancel_futures=True)

    async def _run(self) -> Health:
        engine, vocoder = await asyncio.gather(self._engine_answers(), self._vocoder_speaks())
        return Health(engine, vocoder)

    async def _engine_answers(self) -> bool:
        try:
            async with asyncio.timeout(CHECK_S):
                return await self._backend.healthy()
        except Exception:
            _LOG.exception("the engine cannot be checked")
            return False

    async def _vocoder_speaks(self) -> bool:
        until, speaks = self._vocoder
        if time.monotonic() >= until:
            try:
                async with asyncio.timeout(CHECK_S):
                    loop = asyncio.get_running_loop()
                    n_samples = await loop.run_in_executor(self._pool, lambda: len(self._codec.stream().push([0])))
                speaks = n_samples >= 0
            except Exception:
                _LOG.exception("the vocoder makes no sound")
                speaks = False
            self._vocoder = (time.monotonic() + VOCODER_FRESH_S, speaks)
        return speaks
