"""WebSocket connections with back-pressure: a client that does not read cannot make the server buffer its answers."""

from __future__ import annotations

import asyncio
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.utils import ClientDisconnected
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.protocol import State

from slm_serve.ops.deadlines import ABORT
from slm_serve.ops.limits import Limits


def websocket_protocol(limits: Limits) -> type[asyncio.Protocol]:
    """Return uvicorn's WebSocket protocol with bounds on what is written and on how long a close may take.

    uvicorn's own class writes without looking at the transport's buffer, and closes by ``transport.close()``, which
    waits for the client to read. Here at most the transport's high-water mark (64 KiB) and one message per sender
    wait in memory: a further ``send`` blocks, and incoming frames are not read meanwhile, because every ping
    is answered at once. A connection whose buffer does not shrink for ``stall_s`` seconds is aborted,
    whether it is open or being closed.

    Args:
        limits: Its ``stall_s`` counts.
    """

    class BoundedWebSocket(WebSocketsSansIOProtocol):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self._inner: ASGIApp = self.app
            self.app = self._begin
            self._stall: asyncio.TimerHandle | None = None
            self._unsent = 0
            self._lost = False

        async def _begin(self, scope: Scope, receive: Receive, send: Send) -> None:
            scope["extensions"] = {**(scope.get("extensions") or {}), ABORT: self.transport.abort}
            await self._inner(scope, receive, send)

        # ------------------------------------------------------------------------------ back-pressure
        def pause_writing(self) -> None:
            self.writable.clear()
            self.transport.pause_reading()
            self._watch()

        def resume_writing(self) -> None:
            self.writable.set()
            if not self.read_paused:
                self.transport.resume_reading()
            if not self.transport.is_closing():
                self._stop_watching()

        async def receive(self) -> Any:
            message = await super().receive()
            if not self.writable.is_set():
                # the base class resumes reading for every message taken
                self.transport.pause_reading()
            return message

        def send_receive_event_to_app(self) -> None:
            if self.conn.state in (State.CLOSING, State.CLOSED):
                # an earlier frame of the same read has ended the connection, for example by invalid UTF-8; a second
                # close would raise out of the transport's callback
                self.frames = []
                return
            super().send_receive_event_to_app()

        async def send(self, message: Any) -> None:
            await self.writable.wait()
            if self.transport.is_closing() and message["type"] == "websocket.send":
                raise ClientDisconnected
            if message["type"] == "websocket.http.response.body" and self.initial_response is not None:
                self._refuse(message)
                return
            await super().send(message)

        # --------------------------------------------------------------------------------- the end
        def connection_lost(self, exc: Exception | None) -> None:
            self._lost = True
            self._stop_watching()
            # a sender that waits must learn that the connection is gone
            self.writable.set()
            super().connection_lost(exc)

        def keepalive_timeout(self) -> None:
            super().keepalive_timeout()
            self._watch()

        async def run_asgi(self) -> None:
            try:
                await super().run_asgi()
            finally:
                # close() waits for the client to take what is left
                self._watch()

        def _watch(self) -> None:
            if self._stall is None and not self._lost:
                self._unsent = self.transport.get_write_buffer_size()
                self._stall = self.loop.call_later(limits.stall_s, self._check)

        def _check(self) -> None:
            self._stall = None
            left = self.transport.get_write_buffer_size()
            if 0 < left < self._unsent:
                self._watch()
            else:
                self.transport.abort()

        def _stop_watching(self) -> None:
            if self._stall is not None:
                self._stall.cancel()
                self._stall = None

        # ---------------------------------------------------------------------------------- refusals
        def _refuse(self, message: Message) -> None:
            """Answer the handshake with a status; the base class would send two content types and two lengths."""
            assert self.initial_response is not None
            status, headers, body = self.initial_response
            body += message.get("body", b"")
            self.initial_response = status, headers, body
            if message.get("more_body", False):
                return
            response = self.conn.reject(status, body.decode())
            for name, value in headers:
                if name.lower() in response.headers:
                    del response.headers[name]
                response.headers[name] = value
            self.queue.put_nowait({"type": "websocket.disconnect", "code": 1006})
            self.conn.send_response(response)
            self.close_sent = True
            self.handshake_complete = True
            self.transport.write(b"".join(self.conn.data_to_send()))
            self.transport.close()

    return BoundedWebSocket
