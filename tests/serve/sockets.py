"""A client of ``/v1/realtime`` that holds every event against the types of the ``openai`` SDK."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
import websockets
from openai.types.realtime import RealtimeServerEvent
from pydantic import TypeAdapter

from slm_serve.server import Gateway as Server
from slm_serve.server import listen

_EVENT: TypeAdapter[Any] = TypeAdapter(RealtimeServerEvent)


class Socket:
    """An open session.

    Attributes:
        seen: Every event so far, as the SDK's types.
    """

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self.seen: list[Any] = []

    async def send(self, kind: str, **fields: Any) -> None:
        await self._connection.send(json.dumps({"type": kind, **fields}))

    async def send_raw(self, message: str | bytes) -> None:
        await self._connection.send(message)

    async def say(self, wave_N: np.ndarray, piece: int = 2400) -> None:
        """Append sound at 24 kHz in pieces of 100 ms."""
        samples = np.round(np.clip(wave_N, -1, 1) * 32767).astype("<i2")
        for start in range(0, len(samples), piece):
            data = base64.b64encode(samples[start : start + piece].tobytes()).decode()
            await self.send("input_audio_buffer.append", audio=data)

    async def next(self) -> Any:
        event = json.loads(await self._connection.recv())
        parsed = _EVENT.validate_python(event)
        assert parsed.type == event["type"], f"the SDK takes {event['type']} for {parsed.type}"
        self.seen.append(parsed)
        return parsed

    async def until(self, kind: str) -> Any:
        """Return the next event of a type."""
        while (event := await self.next()).type != kind:
            assert event.type != "error" or kind == "error", event
        return event

    def of(self, kind: str) -> list[Any]:
        return [event for event in self.seen if event.type == kind]

    def kinds(self) -> list[str]:
        return [event.type for event in self.seen]


@asynccontextmanager
async def served(app: Any) -> AsyncIterator[str]:
    """Serve an application on a loopback port; gives the address without a scheme."""
    with listen("127.0.0.1", 0) as listener:
        server = Server(app, listener, "127.0.0.1")
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        while not server.started:
            await asyncio.sleep(0.001)
        try:
            yield "{}:{}".format(*listener.getsockname())
        finally:
            server.should_exit = True
            await serving


@asynccontextmanager
async def realtime(app: Any, model: str = "fake") -> AsyncIterator[Socket]:
    """Open a session and take its greeting."""
    async with (
        served(app) as address,
        websockets.connect(f"ws://{address}/v1/realtime?model={model}") as connection,
    ):
        socket = Socket(connection)
        await socket.next()
        yield socket
