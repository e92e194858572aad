"""The client of the fuzzer in fuzz.py: sends one input and reads what comes until the connection ends."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from fuzz_inputs import HOSTS

ROOT = Path(__file__).resolve().parent.parent
KINDS = ("http", "websocket", "multipart", "audio", "adapter")
IN_FLIGHT = 16
ANSWER_S = 20.0
"""Seconds after which an input without an end of its connection is a hang."""


@dataclass
class Result:
    """What came of one kind."""

    kind: str
    number: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    probes: Counter[str] = field(default_factory=Counter)
    slowest_probe_s: float = 0.0
    start: dict[str, int] = field(default_factory=dict)
    end: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def lost(self) -> dict[str, int]:
        """Tasks and files that were there at the end and not at the start."""
        return {name: self.end[name] - self.start[name] for name in ("tasks", "files")}

    @property
    def growth_bytes(self) -> int:
        """Growth of the resident memory in bytes."""
        return self.end["memory"] - self.start["memory"]

    @property
    def all_alive(self) -> bool:
        """Whether every probe of readiness and liveness was answered 200."""
        return set(self.probes) == {"/health 200", "/health/live 200"}


@dataclass
class Client:
    """Sends inputs to a gateway.

    Args:
        address: Host and port.
        result: Receives the outcomes.
    """

    address: tuple[str, int]
    result: Result

    async def exchange(self, raw: bytes, leaves: bool, first: bytes = b"") -> bytes:
        """Send bytes, and read until the gateway ends the connection.

        Raises:
            TimeoutError: It does not.
        """
        reader, writer = await asyncio.open_connection(*self.address)
        answer = b""
        try:
            async with asyncio.timeout(ANSWER_S):
                if first:
                    # a client may send frames only after the handshake
                    writer.write(first)
                    answer = await reader.readuntil(b"\r\n\r\n")
                writer.write(raw)
                while not leaves and (read := await reader.read(2**16)):
                    answer += read
        except (ConnectionError, asyncio.IncompleteReadError):
            # the answer may have come all the same
            pass
        finally:
            writer.transport.abort()
        return answer

    async def http(self, raw: bytes, well_formed: bool, leaves: bool) -> None:
        """Send a request."""
        try:
            answer = await self.exchange(raw, leaves)
        except TimeoutError:
            self._fail("hang", raw)
            return
        statuses = [found[:3] for found in answer.split(b"HTTP/1.1 ")[1:]]
        status = statuses[-1].decode("latin-1") if statuses else ("left" if leaves else "closed")
        self.result.outcomes[status] += 1
        if any(found[:1] == b"5" and found not in (b"503", b"504") for found in statuses) or b"server_error" in answer:
            self._fail(status, raw, answer)
        elif status == "closed" and well_formed:
            self._fail("no answer", raw)

    async def websocket(self, raw: bytes, leaves: bool) -> None:
        """Open a session and send frames."""
        shake = (
            b"GET /v1/realtime?model=fake HTTP/1.1\r\n" + HOSTS + b"upgrade: websocket\r\nconnection: upgrade\r\n"
            b"sec-websocket-version: 13\r\nsec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
        )
        try:
            answer = await self.exchange(raw, leaves, shake)
        except TimeoutError:
            self._fail("hang", raw)
            return
        status = "left" if leaves else answer[9:12].decode("latin-1") or "closed"
        code = close_code(answer.partition(b"\r\n\r\n")[2])
        self.result.outcomes[f"{status} {code or ''}".strip()] += 1
        if status[:1] == "5" or code == 1011 or b'"server_error"' in answer:
            self._fail(f"{status} {code}", raw, answer)

    def _fail(self, what: str, raw: bytes, answer: bytes = b"") -> None:
        self.result.failures.append(f"{what}: {raw[:600]!r} ... {answer[-400:]!r}")


def close_code(stream: bytes) -> int | None:
    """Return the code of the close frame in a server's frames."""
    place = 0
    while place + 2 <= len(stream):
        opcode, n = stream[place] & 15, stream[place + 1] & 127
        place += 2
        if n >= 126:
            size = 2 if n == 126 else 8
            n = int.from_bytes(stream[place : place + size])
            place += size
        if opcode == 8:
            return int.from_bytes(stream[place : place + 2]) if n >= 2 else 1005
        place += n
    return None
