"""WebSocket frames that are none, and sessions that hold on: closed with a code, nothing kept."""

import asyncio
import base64
import os

import pytest

from faults.conftest import holdings
from slm_serve.ops.limits import Limits

pytestmark = pytest.mark.anyio


async def open_session(g, path="/v1/realtime?model=fake"):
    """Shake hands by hand, so that anything can be sent afterwards."""
    reader, writer = await g.connect()
    key = base64.b64encode(os.urandom(16)).decode()
    head = f"GET {path} HTTP/1.1\r\nhost: localhost\r\nupgrade: websocket\r\nconnection: upgrade\r\n"
    writer.write(f"{head}sec-websocket-version: 13\r\nsec-websocket-key: {key}\r\n\r\n".encode())
    status = await reader.readuntil(b"\r\n\r\n")
    return status, reader, writer


def frame(payload: bytes, opcode: int = 1) -> bytes:
    """Write a client's frame, masked by zeros."""
    assert len(payload) < 126
    return bytes([0x80 | opcode, 0x80 | len(payload)]) + bytes(4) + payload


async def all_of(reader) -> bytes:
    try:
        return await reader.read()
    except ConnectionResetError:
        return b""


BAD = {
    "noise": bytes(range(7, 200)),
    "a reserved opcode": frame(b"x", 7),
    "no mask": b"\x81\x05hello",
    "text that is no text": frame(b"\xff\xfe"),
    "a frame of exabytes": b"\x82\xff" + b"\x7f" + b"\xff" * 7 + bytes(4) + b"x",
    "half a frame and silence": b"\x81",
}


@pytest.mark.parametrize("name", BAD)
async def test_a_frame_that_is_none_ends_the_session_alone(live, name):
    async with live("a<|eot_id|>", limits=Limits(session_idle_s=0.3)) as g:
        before = holdings()
        status, reader, writer = await open_session(g)
        assert b"101 " in status
        writer.write(BAD[name])
        await all_of(reader)
        writer.close()
        while b"slm_sessions 0.0" not in g.service.metrics.page():
            await asyncio.sleep(0.01)
        assert (await g.ask()).status_code == 200
        await g.settled(before)


async def test_frames_after_one_that_is_no_text_are_ignored(live):
    failures = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: failures.append(context))
    async with live("a") as g:
        _, reader, writer = await open_session(g)
        writer.write(frame(b"\xff\xfe") * 3)
        # the close frame: opcode 8, code 1007
        assert b"\x03\xef" in await all_of(reader)
        writer.close()
    assert not failures


NO_EVENTS = [b"", b"{", b"[]", b"null", b'{"type": 5}', b'{"type": "no.such.event"}', b'{"a":' * 20]


@pytest.mark.parametrize("text", NO_EVENTS)
async def test_text_that_is_no_event_is_told_and_the_session_goes_on(live, text):
    async with live("a<|eot_id|>") as g:
        _, reader, writer = await open_session(g)
        writer.write(frame(text))
        await reader.readuntil(b'"type":"error"')
        writer.write(frame(b'{"type": "input_audio_buffer.clear"}'))
        await reader.readuntil(b"input_audio_buffer.cleared")
        writer.transport.abort()


async def test_sessions_are_counted_and_silent_ones_end(live):
    limits = Limits(sessions=1, session_idle_s=0.3)
    async with live("a", limits=limits) as g:
        status, first, writer = await open_session(g)
        assert b"101 " in status
        refused, _, second = await open_session(g)
        assert b" 429 " in refused
        assert b"retry-after" in refused.lower()
        second.close()
        # the close frame: opcode 8, code 1008
        assert b"\x03\xf0" in await all_of(first)
        writer.close()
        while b"slm_sessions 0.0" not in g.service.metrics.page():
            await asyncio.sleep(0.01)
        again, _, third = await open_session(g)
        assert b"101 " in again
        third.transport.abort()


async def test_a_session_ends_at_its_time(live):
    async with live("a", limits=Limits(session_s=0.3)) as g:
        _, reader, writer = await open_session(g)
        assert b"\x03\xf0" in await all_of(reader)
        writer.close()
