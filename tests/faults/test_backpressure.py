"""WebSocket clients that ask and do not read: what waits for them is bounded, and they do not stay."""

import asyncio
import json
import struct

import pytest

from faults.conftest import holdings
from slm_serve.ops.limits import Limits

pytestmark = pytest.mark.anyio

HANDSHAKE = (
    b"GET /v1/realtime?model=fake HTTP/1.1\r\nhost: localhost\r\nupgrade: websocket\r\nconnection: upgrade\r\n"
    b"sec-websocket-version: 13\r\nsec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\n%s\r\n"
)


def frame(payload: bytes, opcode: int = 1) -> bytes:
    """Write a client's frame, masked by zeros."""
    n = len(payload)
    length = bytes([0x80 | n]) if n < 126 else b"\xfe" + struct.pack("!H", n) if n < 2**16 else b"\xff" + n.to_bytes(8)
    return bytes([0x80 | opcode]) + length + bytes(4) + payload


def event(kind: str, **fields: object) -> bytes:
    return frame(json.dumps({"type": kind, **fields}).encode())


async def opened(g, extra: bytes = b"") -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Open a session on a connection with a small receive buffer and read its handshake and greeting."""
    reader, writer = await g.connect(receive_buffer=4096)
    writer.write(HANDSHAKE % extra)
    head = await reader.readuntil(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 101")
    return reader, writer


def unsent(g) -> int:
    return sum(c.transport.get_write_buffer_size() for c in g.server.server_state.connections)


async def sessions_gone(g) -> None:
    while g.server.server_state.connections:
        await asyncio.sleep(0.01)


async def test_a_client_that_requests_items_and_reads_nothing_holds_one_of_them_in_memory(live):
    text = "word " * 20_000
    item = {"id": "large", "type": "message", "role": "user", "content": [{"type": "input_text", "text": text}]}
    async with live("a", limits=Limits(stall_s=0.5)) as g:
        before = holdings()
        _, writer = await opened(g)
        writer.write(event("conversation.item.create", item=item))
        most = 0
        try:
            for _ in range(60):
                writer.write(event("conversation.item.retrieve", item_id="large"))
        except ConnectionError:
            pass
        while g.server.server_state.connections:
            most = max(most, unsent(g))
            await asyncio.sleep(0.005)
        # the high-water mark and the events of one item, not 60 times 100 kB
        assert 0 < most < 2**16 + 4 * len(text)
        writer.close()
        await g.settled(before)


async def test_pings_that_nobody_reads_the_answers_of_are_not_answered_without_end(live):
    async with live("a", limits=Limits(stall_s=0.5)) as g:
        _, writer = await opened(g)
        most = 0
        for _ in range(200):
            writer.write(frame(b"x" * 125, opcode=9) * 1000)
            await asyncio.sleep(0)
            most = max(most, unsent(g))
        while g.server.server_state.connections:
            most = max(most, unsent(g))
            await asyncio.sleep(0.005)
        # 25 MB of pongs were asked for
        assert most < 2**20
        writer.transport.abort()


@pytest.mark.parametrize("end", ["session_s", "session_idle_s"])
async def test_a_session_that_timed_out_does_not_wait_for_its_client_to_read(live, end):
    text = "word " * 10_000
    item = {"id": "large", "type": "message", "role": "user", "content": [{"type": "input_text", "text": text}]}
    async with live("a", limits=Limits(stall_s=0.3, **{end: 0.3})) as g:
        before = holdings()
        _, writer = await opened(g)
        writer.write(event("conversation.item.create", item=item))
        writer.write(event("conversation.item.retrieve", item_id="large") * 20)
        # the client has closed nothing
        await sessions_gone(g)
        writer.close()
        await g.settled(before)


async def test_a_reader_that_is_slow_but_reads_is_served_to_the_end(live):
    text = "word " * 20_000
    item = {"id": "large", "type": "message", "role": "user", "content": [{"type": "input_text", "text": text}]}
    async with live("a", limits=Limits(stall_s=0.5)) as g:
        reader, writer = await opened(g)
        writer.write(event("conversation.item.create", item=item) + event("conversation.item.delete", item_id="large"))
        seen = b""
        # 300 kB at 4 kB every 5 ms; the whole takes several times as long as the limit of a stall
        while b"conversation.item.deleted" not in seen[-4096:]:
            seen += await reader.read(1024)
            await asyncio.sleep(0.005)
        writer.close()


async def test_frames_are_not_compressed_and_not_larger_than_a_recording(live):
    async with live("a", limits=Limits(clip_s=1.0)) as g:
        reader, writer = await g.connect()
        writer.write(HANDSHAKE % b"sec-websocket-extensions: permessage-deflate\r\n")
        assert b"permessage-deflate" not in await reader.readuntil(b"\r\n\r\n")
        # 1 s of pcm16 at 24 kHz is 64 kB in base64; 64 KiB are added
        writer.write(event("input_audio_buffer.append", audio="A" * 64_000))
        # the length in its header is enough
        writer.write(frame(b"x" * 140_000)[:14])
        # 1009: message too big
        assert b"\x03\xf1" in await reader.read()
        writer.close()


@pytest.mark.parametrize("keys", [("secret",), ()], ids=["401", "429"])
async def test_a_refused_handshake_is_one_valid_http_answer(live, keys):
    async with live("a", keys=keys, limits=Limits(sessions=0)) as g:
        reader, writer = await g.connect()
        writer.write(HANDSHAKE % b"")
        head, _, body = (await reader.read()).partition(b"\r\n\r\n")
        names = [line.split(b":")[0].lower() for line in head.split(b"\r\n")[1:]]
        values = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:])
        assert head.startswith(b"HTTP/1.1 401" if keys else b"HTTP/1.1 429")
        assert len(names) == len(set(names))
        assert values[b"content-type"] == b"application/json"
        assert int(values[b"content-length"]) == len(body)
        assert json.loads(body)["error"]["message"]
        writer.close()
