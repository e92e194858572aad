"""Connections that cannot be held open by saying nothing, by never ending a header or by never reading."""

from __future__ import annotations

import asyncio
from typing import Any

from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.auto import AutoHTTPProtocol

from slm_serve.ops.deadlines import ABORT
from slm_serve.ops.limits import Limits


def protocol(limits: Limits) -> type[asyncio.Protocol]:
    """Return uvicorn's HTTP protocol with bounds on what comes before, and what is left behind, a request.

    uvicorn has a time for idle connections alone: half a header, a header without end and a reader that
    takes no last byte are kept for ever. Such connections are dropped here.

    Args:
        limits: Their ``header_s`` and ``header_bytes``.
    """

    class Guarded(AutoHTTPProtocol):  # type: ignore[misc, valid-type]  # chosen at run time
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self._inner: ASGIApp = self.config.loaded_app
            self.app = self._begin
            self._timer: asyncio.TimerHandle | None = None
            self._header_bytes = 0
            self._left = 0

        async def _begin(self, scope: Scope, receive: Receive, send: Send) -> None:
            self._stop_timer()
            scope["extensions"] = {**(scope.get("extensions") or {}), ABORT: self.transport.abort}
            await self._inner(scope, receive, send)

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self._start_timer()

        def connection_lost(self, exc: Exception | None) -> None:
            self._stop_timer()
            super().connection_lost(exc)

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            if self._timer is not None and not self._is_busy():
                # still no complete header: the parser keeps all of it
                self._header_bytes += len(data)
                if self._header_bytes > limits.header_bytes:
                    self.transport.abort()

        def on_response_complete(self) -> None:
            super().on_response_complete()
            self._start_timer()

        def handle_websocket_upgrade(self, *args: Any) -> None:
            self._stop_timer()
            super().handle_websocket_upgrade(*args)

        def _is_busy(self) -> bool:
            return self.cycle is not None and not self.cycle.response_complete

        def _start_timer(self) -> None:
            self._stop_timer()
            self._header_bytes = 0
            self._left = self.transport.get_write_buffer_size()
            self._timer = self.loop.call_later(limits.header_s, self._late)

        def _stop_timer(self) -> None:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None

        def _late(self) -> None:
            left = self.transport.get_write_buffer_size()
            if 0 < left < self._left:
                # it still reads the answer before
                self._start_timer()
            else:
                self._timer = None
                self.transport.abort()

    return Guarded
