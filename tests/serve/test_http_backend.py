"""The HTTP engine against a stand-in for vLLM's server."""

import asyncio
import json

import httpx
import pytest

from slm_plugin.errors import EngineError
from slm_serve.backends.http import HttpBackend
from slm_serve.backends.protocol import Delta, SamplingParams
from slm_serve.errors import RequestError

pytestmark = pytest.mark.anyio


class Lines(httpx.AsyncByteStream):
    """A streamed body that knows whether it was closed."""

    def __init__(self, lines):
        self.lines = lines
        self.closed = False

    async def __aiter__(self):
        for line in self.lines:
            if isinstance(line, Exception):
                raise line
            yield line.encode() + b"\n\n"

    async def aclose(self):
        self.closed = True


def chunk(ids, reason=None):
    choice = {"index": 0, "text": "x", "token_ids": ids, "finish_reason": reason}
    return "data: " + json.dumps({"choices": [choice]})


def backend(answer, seen=None):
    def handle(request):
        if seen is not None:
            seen.append(request)
        if isinstance(answer, Exception):
            raise answer
        return answer

    return HttpBackend("http://engine/v1/", "secret", httpx.MockTransport(handle))


async def collect(engine, params=None):
    return [delta async for delta in engine.generate([5, 6], params or SamplingParams(max_tokens=3), "m")]


async def test_ids_go_out_and_come_back():
    seen = []
    stream = Lines([": comment", chunk([7]), chunk([8, 9], "length"), "data: [DONE]"])
    engine = backend(httpx.Response(200, stream=stream), seen)
    params = SamplingParams(max_tokens=3, temperature=0.0, seed=0, stop_token_ids=(1,))
    assert await collect(engine, params) == [Delta([7]), Delta([8, 9], "length")]
    (request,) = seen
    assert str(request.url) == "http://engine/v1/completions"
    assert request.headers["authorization"] == "Bearer secret"
    # zero is a wish, None is none
    assert json.loads(request.content) == {
        "model": "m",
        "prompt": [5, 6],
        "stream": True,
        "return_token_ids": True,
        "max_tokens": 3,
        "temperature": 0.0,
        "seed": 0,
        "ignore_eos": False,
        "stop_token_ids": [1],
    }


async def test_closing_the_iterator_closes_the_connection():
    stream = Lines([chunk([7]), chunk([8]), chunk([9], "stop")])
    generation = backend(httpx.Response(200, stream=stream)).generate([1], SamplingParams(max_tokens=3), "m")
    assert await anext(generation) == Delta([7])
    assert not stream.closed
    await generation.aclose()
    assert stream.closed


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (httpx.ConnectError("refused"), "does not answer"),
        (httpx.Response(500, json={"error": {"message": "boom"}}), "status 500"),
        (httpx.Response(401, text="no"), "status 401"),
        (httpx.Response(200, stream=Lines([chunk([7]), httpx.ReadError("gone")])), "does not answer"),
        (httpx.Response(200, stream=Lines(['data: {"error": {"message": "dead"}}'])), "failed in the middle"),
        (httpx.Response(200, stream=Lines([chunk([7])])), "broke off in the middle"),
        (httpx.Response(200, stream=Lines(["data: {"])), "not a completion chunk"),
        (httpx.Response(200, stream=Lines(["data: []"])), "not a completion chunk"),
        (httpx.Response(200, stream=Lines([chunk(None)])), "no token ids"),
        (httpx.Response(200, stream=Lines([chunk([1], "abort")])), "'abort'"),
    ],
)
async def test_an_engine_that_fails_is_an_engine_error(answer, words):
    with pytest.raises(EngineError, match=words) as caught:
        await collect(backend(answer))
    assert caught.value.status == 503


@pytest.mark.parametrize(
    ("status", "told", "code"), [(400, 400, None), (422, 400, None), (404, 404, "model_not_found")]
)
async def test_what_the_engine_refuses_is_the_clients_mistake(status, told, code):
    answer = httpx.Response(status, json={"error": {"message": "too long"}})
    with pytest.raises(RequestError, match="too long") as caught:
        await collect(backend(answer))
    assert (caught.value.status, caught.value.code) == (told, code)


async def test_models_and_health():
    card = {"id": "m", "object": "model", "max_model_len": 77}
    engine = backend(httpx.Response(200, json={"data": [card]}))
    (model,) = await engine.models()
    assert (model.id, model.context, model.fields) == ("m", 77, card)
    assert await engine.healthy()
    away = backend(httpx.ConnectError("refused"))
    assert not await away.healthy()
    with pytest.raises(EngineError, match="does not list its models"):
        await away.models()
    with pytest.raises(EngineError, match="does not list its models"):
        await backend(httpx.Response(200, json=["no"])).models()
    assert not await backend(httpx.Response(503)).healthy()
    await engine.close()


async def resting_server(answers_again: bool):
    """Serve one answer on a connection, and close it when the next request comes on it; tell of every request."""
    requests = []

    async def serve(reader, writer):
        for number in range(2):
            head = await reader.readuntil(b"\r\n\r\n")
            await reader.readexactly(int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0]))
            requests.append(number)
            if number or not (answers_again or len(requests) == 1):
                break
            content = (chunk([7], "stop") + "\n\n").encode()
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(content), content))
        writer.close()

    return await asyncio.start_server(serve, "127.0.0.1", 0), requests


async def test_a_connection_that_was_closed_while_it_rested_costs_no_answer():
    server, requests = await resting_server(answers_again=True)
    async with server:
        engine = HttpBackend(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
        assert [await collect(engine) for _ in range(3)] == 3 * [[Delta([7], "stop")]]
        await engine.close()
    # the second one was sent on the connection of the first, and again on a new one; the third likewise
    assert requests == [0, 1, 0, 1, 0]


async def test_an_engine_that_closes_every_connection_is_away():
    server, requests = await resting_server(answers_again=False)
    async with server:
        engine = HttpBackend(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
        assert await collect(engine) == [Delta([7], "stop")]
        with pytest.raises(EngineError, match="does not answer"):
            await collect(engine)
        await engine.close()
    assert requests == [0, 1, 0]
