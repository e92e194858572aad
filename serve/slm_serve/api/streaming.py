"""Answers that end with their client: server-sent events, and work that stops on disconnect."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Awaitable, Mapping
from typing import Any, ClassVar, TypeVar

import anyio
from fastapi import Request
from starlette.requests import ClientDisconnect
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from slm_plugin.errors import SlmError
from slm_serve.errors import error_body

Result = TypeVar("Result")


class EventStream(StreamingResponse):
    """Server-sent events of an async generator, which is closed whatever happens to the client.

    An error in the middle becomes an event ``{"error": ...}``, which OpenAI's clients raise.

    Args:
        events: The events, each made by :meth:`event`.
        sources: What the events are made from; closed too, for the events may never have begun.
    """

    DONE: ClassVar[str] = "data: [DONE]\n\n"

    def __init__(self, events: AsyncGenerator[str, None], *sources: AsyncGenerator[Any, None]) -> None:
        headers = {"cache-control": "no-cache", "x-accel-buffering": "no"}
        told = _with_errors(events)
        super().__init__(told, media_type="text/event-stream", headers=headers)
        self._chain: list[AsyncGenerator[Any, None]] = [told, events, *sources]

    @staticmethod
    def event(data: Mapping[str, Any]) -> str:
        """Write one event."""
        return f"data: {json.dumps(data, ensure_ascii=False, separators=(',', ':'))}\n\n"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the events; close their generators at the end, also when the client left."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            await _close(self._chain)


class ByteStream(StreamingResponse):
    """A file that is sent while it is made; its generators are closed whatever happens to the client.

    An error in the middle breaks the connection off, for a file has no other way to say so.

    Args:
        data: The bytes.
        media_type: Of the file.
        sources: What the bytes are made from; closed too, for the bytes may never have begun.
    """

    def __init__(
        self, data: AsyncGenerator[bytes, None], media_type: str, *sources: AsyncGenerator[Any, None]
    ) -> None:
        super().__init__(data, media_type=media_type, headers={"cache-control": "no-cache", "x-accel-buffering": "no"})
        self._chain: list[AsyncGenerator[Any, None]] = [data, *sources]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the bytes; close their generators at the end, also when the client left."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            await _close(self._chain)


async def _close(chain: list[AsyncGenerator[Any, None]]) -> None:
    with anyio.CancelScope(shield=True):
        for generator in chain:
            await generator.aclose()


async def _with_errors(events: AsyncGenerator[str, None]) -> AsyncGenerator[str, None]:
    try:
        async for event in events:
            yield event
    except Exception as error:
        yield EventStream.event(error_body(error))
        if not isinstance(error, SlmError):
            raise


async def unless_disconnected(request: Request, work: Awaitable[Result]) -> Result:
    """Return the result of some work, or cancel it when the client leaves.

    Args:
        request: Its body must have been read.
        work: What to wait for.

    Raises:
        ClientDisconnect: The client left; the work has been cancelled.
    """
    task = asyncio.ensure_future(work)
    watch = asyncio.create_task(_left(request))
    try:
        await asyncio.wait((task, watch), return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        raise ClientDisconnect
    finally:
        for pending in (task, watch):
            pending.cancel()
        with anyio.CancelScope(shield=True):
            await asyncio.gather(task, watch, return_exceptions=True)


async def _left(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
