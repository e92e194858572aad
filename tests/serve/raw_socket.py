"""A WebSocket handshake without a network: what the application says to it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any


async def ask_socket(app: Any, address: str, headers: Mapping[str, str]) -> list[dict[str, Any]]:
    """Open a WebSocket, leave as soon as it was answered, and return what was sent."""
    path, _, query = address.partition("?")
    sent: list[dict[str, Any]] = []
    answered = asyncio.Event()
    waiting: list[dict[str, Any]] = [{"type": "websocket.connect"}]

    async def receive() -> dict[str, Any]:
        if waiting:
            return waiting.pop()
        await answered.wait()
        return {"type": "websocket.disconnect", "code": 1000}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)
        answered.set()

    given = {"host": "localhost", **headers}
    scope = {
        "type": "websocket",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "path": path,
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "headers": [(name.encode(), value.encode()) for name, value in given.items()],
        "subprotocols": [word.strip() for word in given.get("sec-websocket-protocol", "").split(",") if word.strip()],
        "extensions": {"websocket.http.response": {}},
        "scheme": "ws",
        "server": ("gateway", 80),
        "client": ("client", 1),
        "http_version": "1.1",
    }
    await app(scope, receive, send)
    return sent
