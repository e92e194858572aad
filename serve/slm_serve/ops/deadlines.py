"""No request takes for ever: bodies arrive, readers read and answers end within their times."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from contextlib import suppress

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from slm_serve.context import current
from slm_serve.errors import RequestError, error_body
from slm_serve.ops.limits import Limits
from slm_serve.ops.refusal import POLICY_VIOLATION, refuse

ABORT = "slm.abort"
"""Extension of the ASGI scope: a function that drops the connection without waiting for its reader."""


class Deadlines:
    """Ends what takes too long, each with the words that its client can still hear.

    Args:
        app: What is watched.
        limits: The times, and ``body_bytes``.
    """

    def __init__(self, app: ASGIApp, limits: Limits) -> None:
        self._app = app
        self._limits = limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on under its times."""
        if scope["type"] == "http":
            await self._http(scope, receive, send)
        elif scope["type"] == "websocket":
            await self._websocket(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        watched = _Watched(scope, receive, send, self._limits)
        limit = asyncio.timeout(self._limits.total_s)
        try:
            async with limit:
                await self._app(scope, watched.receive, watched.send)
        except TimeoutError:
            if not limit.expired():
                raise
            current().cancel = "timeout"
            text = f"the answer took longer than the limit of {self._limits.total_s:g} seconds."
            await watched.end(RequestError(text, code="timeout", status=504))
        except Exception as error:
            if watched.is_dropped:
                # whatever the layers between have made of it
                current().cancel = "slow_reader"
            elif isinstance(error, RequestError):
                # told by the application itself, save where it struck outside of its routes
                await watched.end(error)
            else:
                raise

    async def _websocket(self, scope: Scope, receive: Receive, send: Send) -> None:
        limit, closed = asyncio.timeout(self._limits.session_s), False

        async def heard() -> Message:
            try:
                async with asyncio.timeout(self._limits.session_idle_s):
                    return await receive()
            except TimeoutError:
                current().cancel = "timeout"
                await told({"type": "websocket.close", "code": POLICY_VIOLATION, "reason": "the session was silent."})
                return {"type": "websocket.disconnect", "code": POLICY_VIOLATION}

        async def told(message: Message) -> None:
            nonlocal closed
            closed = closed or message["type"] == "websocket.close"
            try:
                async with asyncio.timeout(self._limits.stall_s):
                    await send(message)
            except TimeoutError:
                closed = True
                _abort(scope)
                raise _TooSlow from None

        try:
            async with limit:
                await self._app(scope, heard, told)
        except TimeoutError:
            if not limit.expired():
                raise
            current().cancel = "timeout"
            if not closed:
                with suppress(_TooSlow):
                    text = "the session timed out."
                    await told({"type": "websocket.close", "code": POLICY_VIOLATION, "reason": text})
        except _TooSlow:
            current().cancel = "slow_reader"


class _TooSlow(Exception):  # noqa: N818 - it is no error, and never leaves this file
    """The client does not read what it asked for."""


class _Watched:
    """The two ways to a client, with times and a count of bytes."""

    def __init__(
        self, scope: Scope, receive: Receive, send: Send, limits: Limits, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._scope = scope
        self._receive = receive
        self._send = send
        self._limits = limits
        self._waited_s = 0.0
        self._clock = clock
        self._n_bytes = 0
        self._body_left = True
        self._begun = self._ended = self._events = False
        self.is_dropped = False

    async def receive(self) -> Message:
        if not self._body_left:
            return await self._receive()
        began = self._clock()
        try:
            async with asyncio.timeout(max(0.0, self._limits.body_s - self._waited_s)):
                message = await self._receive()
        except TimeoutError:
            self._body_left = False
            text = f"the request did not arrive within {self._limits.body_s:g} seconds."
            raise RequestError(text, code="request_timeout", status=408) from None
        finally:
            # the wait in the queue is not the client's
            self._waited_s += self._clock() - began
        self._n_bytes += len(message.get("body", b""))
        self._body_left = bool(message.get("more_body", False))
        if self._n_bytes > self._limits.body_bytes:
            text = f"the request is larger than {self._limits.body_bytes / 2**20:g} MiB."
            raise RequestError(text, code="request_too_large", status=413)
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._begun = True
            kind = Headers(raw=list(message.get("headers", []))).get("content-type", "")
            self._events = kind.startswith("text/event-stream")
        elif message["type"] == "http.response.body" and not message.get("more_body", False):
            self._ended = True
        try:
            async with asyncio.timeout(self._limits.stall_s):
                await self._send(message)
        except TimeoutError:
            self._ended = self.is_dropped = True
            _abort(self._scope)
            raise _TooSlow from None

    async def end(self, error: RequestError) -> None:
        """Say why an answer ends, as far as its form still lets us."""
        if not self._begun:
            await refuse(error, self._scope, self.receive, self.send)
        elif not self._ended:
            text = f"data: {json.dumps(error_body(error))}\n\n" if self._events else ""
            await self.send({"type": "http.response.body", "body": text.encode(), "more_body": self._events is False})
            if not self._events:
                # a file that is cut must not look complete
                _abort(self._scope)


def _abort(scope: Scope) -> None:
    abort = (scope.get("extensions") or {}).get(ABORT)
    if abort is not None:
        abort()
