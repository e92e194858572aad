"""Keys, models, health, clients that leave."""

import asyncio
import json

import openai
import pytest

from slm_plugin.errors import VocabularyError
from slm_serve.errors import RequestError
from slm_serve.fakes import FakeCodec
from slm_serve.history import History
from slm_serve.server import Gateway as Server
from slm_serve.server import listen
from slm_serve.service import bind_units
from slm_serve.voice import OPENAI_VOICES

pytestmark = pytest.mark.anyio

HELLO = {"role": "user", "content": "hello"}


async def test_without_keys_everybody_is_let_in(gateway):
    async with gateway("a") as g:
        assert (await g.http.get("/v1/models")).status_code == 200


async def test_with_keys_only_their_owners_are_let_in(gateway):
    async with gateway("a<|eot_id|>", keys=["one", "two"]) as g:
        with pytest.raises(openai.AuthenticationError) as caught:
            await g.client.models.list()
        assert caught.value.body["code"] == "invalid_api_key"
        for header in ({}, {"authorization": "one"}, {"authorization": "Bearer"}, {"authorization": "Bearer öne"}):
            headers = {name: value.encode() for name, value in header.items()}
            assert (await g.http.post("/v1/chat/completions", headers=headers)).status_code == 401
        allowed = g.client.with_options(api_key="two")
        answer = await allowed.chat.completions.create(model="fake", messages=[HELLO])
        assert answer.choices[0].message.content == "a"
        assert (await g.http.get("/health")).status_code == 200


async def test_models_are_the_engines_with_the_codec(gateway):
    async with gateway("a") as g:
        models = await g.client.models.list()
        (model,) = models.data
        assert (model.id, model.object, model.owned_by) == ("fake", "model", "fake")
        assert model.slm == {
            "codec": "fake-codec",
            "codec_fingerprint": "fake00000000",
            "n_units": 50,
            "rate_hz": 50.0,
            "voices": list(OPENAI_VOICES),
        }
        assert await g.client.models.retrieve("fake") == model
        with pytest.raises(openai.NotFoundError):
            await g.client.models.retrieve("other")


async def test_health_is_the_engines(gateway):
    async with gateway("a") as g:
        assert (await g.http.get("/health")).status_code == 200
        g.backend.alive = False
        assert (await g.http.get("/health")).status_code == 503


class Connection:
    """An ASGI connection whose client can leave."""

    def __init__(self, app, body):
        self.app = app
        self.body = body
        self.left = asyncio.Event()
        self.begun = asyncio.Event()
        self.sent = []

    async def receive(self):
        if self.body is not None:
            body, self.body = self.body, None
            return {"type": "http.request", "body": body, "more_body": False}
        await self.left.wait()
        return {"type": "http.disconnect"}

    async def send(self, message):
        self.sent.append(message)
        if message["type"] == "http.response.body":
            self.begun.set()

    async def run(self):
        scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "method": "POST",
            "path": "/v1/chat/completions",
            "raw_path": b"/v1/chat/completions",
            "query_string": b"",
            "headers": [],
            "http_version": "1.1",
            "scheme": "http",
            "server": ("gateway", 80),
            "client": ("client", 1),
        }
        await self.app(scope, self.receive, self.send)


async def until_called(backend):
    while not backend.calls:
        await asyncio.sleep(0.001)
    return backend.calls[0]


def body_of(**more):
    return json.dumps({"model": "fake", "messages": [HELLO], **more}).encode()


@pytest.mark.parametrize("hang_after", [0, 1], ids=["before the first token", "after it"])
@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_that_leaves_ends_the_generation(gateway, stream, hang_after):
    async with gateway(["one ", "two "], hang_after=hang_after) as g:
        connection = Connection(g.http._transport.app, body_of(stream=stream))
        running = asyncio.create_task(connection.run())
        call = await until_called(g.backend)
        if stream and hang_after:
            await connection.begun.wait()
        assert not call.ended.is_set()
        connection.left.set()
        await call.ended.wait()
        await running
    texts = [message.get("body", b"") for message in connection.sent]
    assert b"[DONE]" not in b"".join(texts)


async def test_a_client_that_leaves_while_it_is_spoken_to_ends_the_generation(gateway):
    audio = {"modalities": ["text", "audio"], "audio": {"voice": "alloy", "format": "pcm16"}}
    async with gateway(["one<|3|>", "two "], hang_after=1) as g:
        connection = Connection(g.http._transport.app, body_of(stream=True, **audio))
        running = asyncio.create_task(connection.run())
        call = await until_called(g.backend)
        await connection.begun.wait()
        connection.left.set()
        await call.ended.wait()
        await running


@pytest.mark.parametrize("stream", [False, True])
async def test_a_connection_that_breaks_ends_the_generation(gateway, stream):
    async with gateway(["one ", "two "], hang_after=1) as g:
        with listen("127.0.0.1", 0) as listener:
            server = Server(g.http._transport.app, listener, "127.0.0.1")
            serving = asyncio.create_task(server.serve(sockets=[listener]))
            while not server.started:
                await asyncio.sleep(0.001)
            reader, writer = await asyncio.open_connection(*listener.getsockname())
            body = body_of(stream=stream)
            head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: {len(body)}\r\n\r\n"
            writer.write(head.encode() + body)
            call = await until_called(g.backend)
            if stream:
                await reader.readuntil(b"one ")
            assert not call.ended.is_set()
            writer.transport.abort()
            await call.ended.wait()
            server.should_exit = True
            await serving


async def test_the_engine_is_asked_for_its_models_once(gateway, monkeypatch):
    asked = []
    async with gateway("a<|eot_id|>") as g:
        original = g.backend.models

        async def models():
            asked.append(1)
            return await original()

        monkeypatch.setattr(g.backend, "models", models)
        for _ in range(3):
            assert (await g.post()).status_code == 200
    assert asked == [1]


def test_a_model_whose_units_are_not_the_codecs_is_refused(tokenizer):
    with pytest.raises(VocabularyError, match="has 50 units, the codec other has 49"):
        bind_units(tokenizer, FakeCodec(49), "a folder", "other")


def test_a_model_without_units_is_refused(codec):
    from tiny_models import make_tokenizer

    with pytest.raises(VocabularyError, match="no unit tokens"):
        bind_units(make_tokenizer(), codec, "a folder", "fake")


async def test_spoken_answers_are_forgotten_after_their_time():
    now = [1000.0]
    history = History(lifetime_s=60, clock=lambda: now[0])
    ticket = await history.issue()
    assert ticket.expires_at == 1060
    await history.remember(ticket, [1, 2])
    assert await history.recall(ticket.id, "p") == (1, 2)
    now[0] = 1060.0
    with pytest.raises(RequestError, match="expired") as caught:
        await history.recall(ticket.id, "messages[0].audio.id")
    assert caught.value.param == "messages[0].audio.id"


async def test_only_the_latest_spoken_answers_are_kept():
    history = History(capacity=2)
    tickets = [await history.issue() for _ in range(3)]
    for ticket in tickets:
        await history.remember(ticket, [1])
    assert [await history.recall(ticket.id, "p") for ticket in tickets[1:]] == [(1,), (1,)]
    with pytest.raises(RequestError):
        await history.recall(tickets[0].id, "p")
