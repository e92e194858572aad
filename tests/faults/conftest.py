"""A gateway on a real socket in this process, over a fake engine, and a count of what it holds."""

from __future__ import annotations

import asyncio
import json
import os
import socket
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from serve.conftest import anyio_backend, codec, tokenizer, vocabulary, write
from slm_serve.app import create_app
from slm_serve.backends.fake import FakeBackend
from slm_serve.ops.limits import Limits
from slm_serve.ops.settings import Settings
from slm_serve.server import Gateway, listen
from slm_serve.service import Service

__all__ = ["anyio_backend", "codec", "tokenizer", "vocabulary", "write"]

HELLO = {"role": "user", "content": "hello"}
SPEECH = {"modalities": ["text", "audio"], "audio": {"voice": "alloy", "format": "pcm16"}}


class Live:
    """A gateway that listens.

    Attributes:
        address: Host and port.
        backend: Its engine.
        http: A client.
        server: The server itself.
        service: What its routes share.
    """

    def __init__(
        self, address: tuple[str, int], backend: Any, http: httpx.AsyncClient, server: Gateway, service: Service
    ) -> None:
        self.address = address
        self.backend = backend
        self.http = http
        self.server = server
        self.service = service

    async def ask(self, **more: Any) -> httpx.Response:
        """Ask for a chat completion."""
        return await self.http.post("/v1/chat/completions", content=body(**more))

    def client(self) -> httpx.AsyncClient:
        """Make a client of as many connections as it likes."""
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=0)
        return httpx.AsyncClient(base_url="http://{}:{}".format(*self.address), timeout=None, limits=limits)

    async def settled(self, expected: dict[str, int]) -> None:
        """Wait until no more is held than before, for as long as the test may take; the client's own is let go of."""
        await self.http.aclose()
        while any(held > expected[name] for name, held in holdings().items()):
            await asyncio.sleep(0.01)

    async def connect(self, receive_buffer: int | None = None) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Open a bare connection.

        Args:
            receive_buffer: Bytes that the kernel takes in for a reader that does not read.
        """
        connection = socket.socket()
        if receive_buffer is not None:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        connection.setblocking(False)
        await asyncio.get_running_loop().sock_connect(connection, self.address)
        return await asyncio.open_connection(sock=connection, limit=receive_buffer or 2**16)


def body(**more: Any) -> bytes:
    """Write the body of a chat request."""
    return json.dumps({"model": "fake", "messages": [HELLO], **more}).encode()


def request(content: bytes, path: str = "/v1/chat/completions") -> bytes:
    """Write a request as it goes over the wire."""
    head = f"POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
    return f"{head}content-length: {len(content)}\r\n\r\n".encode() + content


def holdings() -> dict[str, int]:
    """Count what must not grow: tasks of this loop, and open files of this process."""
    return {"tasks": len(asyncio.all_tasks()), "files": len(list(Path(f"/proc/{os.getpid()}/fd").iterdir()))}


Open = Callable[..., AbstractAsyncContextManager[Live]]


@pytest.fixture
def live(tokenizer: Any, vocabulary: Any, codec: Any, write: Any) -> Open:
    """Open a gateway whose engine answers with scripts: a text, or its deltas."""

    @asynccontextmanager
    async def opened(
        *scripts: str | Sequence[str],
        limits: Limits | None = None,
        keys: Sequence[str] = (),
        backend: Any = None,
        drain_s: int = 20,
        **options: Any,
    ) -> AsyncIterator[Live]:
        pieces = [[[token] for token in write(s)] if isinstance(s, str) else [write(d) for d in s] for s in scripts]
        backend = backend or FakeBackend(pieces or [[[tokenizer.eos_token_id]]], **options)
        limits = limits or Limits()
        service = Service(tokenizer, vocabulary, codec, backend, "fake-codec", limits=limits)
        with listen("127.0.0.1", 0) as listener:
            # what the kernel takes from a server whose client does not read; else it may be megabytes
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2**16)
            server = Gateway(
                create_app(service, keys, Settings(limits)), listener, "127.0.0.1", limits, drain_s=drain_s
            )
            serving = asyncio.create_task(server.serve(sockets=[listener]))
            while not server.started:
                await asyncio.sleep(0.001)
            address = listener.getsockname()
            async with httpx.AsyncClient(base_url=f"http://{address[0]}:{address[1]}", timeout=None) as http:
                yield Live(address, backend, http, server, service)
            server.should_exit = True
            await serving

    return opened
