"""Asking an engine over real connections, and leaving at any moment."""

import asyncio
import json
from contextlib import asynccontextmanager

import pytest

from slm_serve.backends.http import HttpBackend
from slm_serve.backends.protocol import SamplingParams
from slm_serve.reading import Reader

pytestmark = pytest.mark.anyio

N_TOKENS = 6


@asynccontextmanager
async def engine_of_few_words():
    """Serve answers of a few tokens, one a write; tell of the connections that its clients hold."""
    held = set()

    async def serve(reader, writer):
        held.add(writer)
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                if head.startswith(b"GET"):
                    writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 11\r\n\r\n" + b'{"data":[]}')
                    continue
                await reader.readexactly(int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0]))
                writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
                for token in range(N_TOKENS):
                    last = token == N_TOKENS - 1
                    choice = {"index": 0, "token_ids": [token], "finish_reason": "stop" if last else None}
                    line = b"data: " + json.dumps({"choices": [choice]}).encode() + b"\n\n"
                    writer.write(b"%x\r\n%b\r\n" % (len(line), line))
                    await writer.drain()
                    await asyncio.sleep(0)
                writer.write(b"0\r\n\r\n")
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            held.discard(writer)
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", held


async def test_a_reader_that_is_stopped_at_any_moment_leaves_no_connection_behind():
    async with engine_of_few_words() as (url, held):
        backend = HttpBackend(url)
        for moment in range(60):
            reader = Reader(backend.generate([1], SamplingParams(max_tokens=N_TOKENS), "m"), asyncio.Event())
            for _ in range(moment):
                await asyncio.sleep(0)
            await reader.stop()
            await asyncio.sleep(0.01)
            # one may rest, for the next answer
            assert len(held) <= 1, f"stopped after {moment} turns of the loop"
        await backend.close()


@pytest.mark.parametrize("question", ["models", "healthy"])
async def test_a_question_to_the_engine_that_is_cancelled_at_any_moment_leaves_no_connection_behind(question):
    async with engine_of_few_words() as (url, held):
        backend = HttpBackend(url)
        for moment in range(40):
            asking = asyncio.create_task(getattr(backend, question)())
            for _ in range(moment):
                await asyncio.sleep(0)
            asking.cancel()
            await asyncio.wait((asking,))
            await asyncio.sleep(0.01)
            assert len(held) <= 1, f"cancelled after {moment} turns of the loop"
        await backend.close()


async def test_a_reader_may_be_stopped_twice_and_after_its_end():
    async with engine_of_few_words() as (url, _):
        backend = HttpBackend(url)
        news = asyncio.Event()
        reader = Reader(backend.generate([1], SamplingParams(max_tokens=N_TOKENS), "m"), news)
        taken = []
        while not reader.done:
            await news.wait()
            news.clear()
            if delta := reader.take():
                taken += delta.ids
        assert taken == list(range(N_TOKENS))
        await reader.stop()
        await reader.stop()
        assert reader.done
        await backend.close()
