"""Keep the engine running: start it anew when it has died or no longer answers."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable

from slm_serve.backends.protocol import Backend
from slm_serve.engine import Engine
from slm_serve.ops.metrics import Metrics

POLL_S = 0.5
SILENCE_S = 60.0
"""Seconds after which an engine that runs and does not answer is taken for dead."""
LONGEST_PAUSE_S = 60.0

_LOG = logging.getLogger("slm_serve.engine")


class Supervisor:
    """Watches one engine. Meanwhile its requests fail by themselves: nobody listens at its address.

    Args:
        engine: Started and ready.
        backend: Asks it for its health.
        metrics: Counts the restarts.
        restarted: Called when it is ready again.
    """

    def __init__(
        self,
        engine: Engine,
        backend: Backend,
        metrics: Metrics,
        restarted: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self._engine = engine
        self._backend = backend
        self._metrics = metrics
        self._restarted = restarted

    async def run(self) -> None:
        """Watch for ever."""
        heard = time.monotonic()
        while True:
            await asyncio.sleep(POLL_S)
            code = self._engine.exit_code()
            if code is None and await self._backend.healthy():
                heard = time.monotonic()
                continue
            if code is None and time.monotonic() - heard < SILENCE_S:
                continue
            why = f"it does not answer for {SILENCE_S:.0f} s" if code is None else f"it ended with code {code}"
            _LOG.error("the engine is started anew", extra={"fields": {"why": why}})
            await self._restart()
            heard = time.monotonic()

    async def _restart(self) -> None:
        pause_s = 1.0
        while True:
            self._metrics.engine_restarts.inc()
            try:
                await asyncio.to_thread(self._engine.stop)
                self._engine.start()
                await self._engine.ready()
                if self._restarted is not None:
                    await self._restarted()
            except Exception as error:
                # no file, no memory, no process: without another try there would be no engine for ever. The words of
                # an EngineError hold the end of vLLM's log, which is in its own file
                fields = {"again_in_s": pause_s, "log": str(self._engine.log_path), "why": type(error).__name__}
                _LOG.error("the engine does not start", extra={"fields": fields})
                await asyncio.sleep(pause_s)
                pause_s = min(LONGEST_PAUSE_S, 2 * pause_s)
            else:
                _LOG.warning("the engine is back")
                return
