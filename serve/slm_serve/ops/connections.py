"""Connections that cannot be held open by saying nothing, by never ending a header or by never reading."""

from __future__ import annotations

import asyncio
from typing import Any

import h11
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.auto import AutoHTTPProtocol

from slm_serve.ops.deadlines import ABORT
from slm_serve.ops.limits import Limits

_LIVENESS = b"/health/live"
_ONE_READ = 2**18
"""Most bytes that asyncio reads at once, which may belong to two messages."""


def protocol(limits: Limits) -> type[asyncio.Protocol]:
    """Return uvicorn's HTTP protocol with bounds on what comes before, and what is left behind, a request.

    uvicorn has a time for idle connections alone: half a header, a header without end and a reader that
    takes no last byte are kept for ever. Such connections are dropped here.

    Args:
        limits: Its ``header_s``, ``header_bytes`` and ``connections``.
    """

    class Guarded(AutoHTTPProtocol):  # type: ignore[misc, valid-type]  # chosen at run time
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self._inner: ASGIApp = self.config.loaded_app
            self.app = self._begin
            self._timer: asyncio.TimerHandle | None = None
            self.resting_since = 0.0
            self._header_bytes = 0
            self._message_bytes = self._body_bytes = 0
            self._header_is_open = True
            self._left = 0

        async def _begin(self, scope: Scope, receive: Receive, send: Send) -> None:
            self._stop_timer()
            scope["extensions"] = {**(scope.get("extensions") or {}), ABORT: self.transport.abort}
            await self._inner(scope, receive, send)

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self._start_timer()
            self._make_room()

        def _make_room(self) -> None:
            """Drop the connection that has rested longest if there is one more than may be."""
            if len(self.connections) <= limits.connections:
                return
            others = (c for c in self.connections if isinstance(c, Guarded) and c is not self and c.is_resting)
            oldest = min(others, key=lambda c: c.resting_since, default=None)
            if oldest is not None:
                oldest.transport.abort()

        @property
        def is_resting(self) -> bool:
            """Whether no request is answered or begun on it."""
            return self._timer is not None and (self.cycle is None or self.cycle.response_complete)

        def connection_lost(self, exc: Exception | None) -> None:
            self._stop_timer()
            super().connection_lost(exc)

        def data_received(self, data: bytes) -> None:
            was_in_header = self._in_header()
            self._message_bytes += len(data)
            super().data_received(data)
            if was_in_header and self._in_header():
                # still no complete header, of the first request or of one behind it: the parser keeps all of it
                self._header_bytes += len(data)
            # trailers and extensions of chunks are in no body that is counted; a chunk of one byte takes six more
            around_bytes = self._message_bytes - self._body_bytes
            most_around = limits.header_bytes + _ONE_READ + 8 * self._body_bytes
            if self._header_bytes > limits.header_bytes or around_bytes > most_around:
                self.transport.abort()

        def on_message_begin(self) -> None:
            self._header_is_open, self._header_bytes, self._message_bytes, self._body_bytes = True, 0, 0, 0
            super().on_message_begin()

        def on_header(self, name: bytes, value: bytes) -> None:
            if self._header_is_open:
                self._header_bytes += len(name) + len(value)
                super().on_header(name, value)

        def on_body(self, body: bytes) -> None:
            self._body_bytes += len(body)
            super().on_body(body)

        def on_headers_complete(self) -> None:
            self._header_is_open = False
            # a server full of busy connections must not look dead to whoever would restart it
            is_probe = self.url.partition(b"?")[0] == _LIVENESS
            self.limit_concurrency = None if is_probe else self.config.limit_concurrency
            super().on_headers_complete()

        def _in_header(self) -> bool:
            """Tell whether a header has begun or is waited for; uvicorn's two parsers keep that differently."""
            if hasattr(self, "conn"):
                return self.conn.their_state is h11.IDLE
            return self._header_is_open

        def on_response_complete(self) -> None:
            super().on_response_complete()
            self._start_timer()

        def handle_websocket_upgrade(self, *args: Any) -> None:
            self._stop_timer()
            super().handle_websocket_upgrade(*args)

        def _start_timer(self) -> None:
            self._stop_timer()
            self._left = self.transport.get_write_buffer_size()
            self.resting_since = self.loop.time()
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
