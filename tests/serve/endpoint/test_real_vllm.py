"""The endpoint plugin in a real vLLM, as users start it, beside our own gateway over the same vLLM's HTTP.

The gateway asks vLLM's own ``/v1/completions``, which the plugin leaves in place, so one server shows both ways.
"""

import asyncio
import base64
import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from contextlib import asynccontextmanager

import httpx
import numpy as np
import pytest
import websockets

from serve.sounds import recording, spoken
from serve.test_vllm import HELLO, SPEECH, UNITS, chirps, codec, favour_units
from slm_serve.app import create_app
from slm_serve.backends.http import HttpBackend
from slm_serve.engine import cpu_arguments, engine_environment, free_port, read_config
from slm_serve.interleave.constraint import PROCESSOR
from slm_serve.loading import load_parts
from slm_serve.service import Service
from tiny_models import make_model

__all__ = ["codec"]

pytestmark = [pytest.mark.vllm, pytest.mark.slow, pytest.mark.timeout(900), pytest.mark.anyio]

KEY = {"authorization": "Bearer key"}
BODY = {"model": "model", "messages": [HELLO], "temperature": 0, "max_tokens": 80}


class Server:
    """A vLLM with the plugin."""

    def __init__(self, process, url, model, codec):
        self.process = process
        self.url = url
        self.model = model
        self.codec = codec

    @asynccontextmanager
    async def clients(self):
        """Give a client of the plugin's routes, and one of a gateway over this vLLM's HTTP."""
        tokenizer, vocabulary, speech = load_parts(str(self.model), str(self.codec))
        gateway = Service(tokenizer, vocabulary, speech, HttpBackend(self.url, "key"), str(self.codec))
        through = httpx.ASGITransport(create_app(gateway))
        async with (
            httpx.AsyncClient(base_url=self.url, headers=KEY, timeout=None) as plugin,
            httpx.AsyncClient(transport=through, base_url="http://localhost", timeout=None) as other,
        ):
            yield plugin, other
        await gateway.close()


@pytest.fixture(scope="module")
def server(tmp_path_factory, codec):
    folder = tmp_path_factory.mktemp("plugin")
    # layers enough that a stream that is left is still under way when its end is noticed
    model = make_model(folder / "model", units=UNITS, layers=48)
    favour_units(model)
    (folder / "keys").write_text("key\n")
    port = free_port()
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(model)]
    command += ["--served-model-name", "model", "--host", "127.0.0.1", "--port", str(port)]
    command += [*cpu_arguments(read_config(str(model))), "--logits-processors", PROCESSOR]
    # a cached prefix rounds otherwise, and a random model's first two choices are often that close
    command += ["--no-enable-prefix-caching"]
    ours = {"CODEC": str(codec), "API_KEY_FILE": str(folder / "keys"), "MAX_CLIP_SECONDS": "5"}
    environment = engine_environment(os.environ, cpu=True) | {"VLLM_PLUGINS": "slm_serve"}
    environment |= {f"SLM_SERVE_{name}": value for name, value in ours.items()}
    log, url = folder / "vllm.log", f"http://127.0.0.1:{port}"
    with log.open("wb") as out:
        process = subprocess.Popen(command, env=environment, stdout=out, stderr=out, start_new_session=True)
    try:
        while not is_up(url):
            assert process.poll() is None, log.read_text()
            time.sleep(0.2)
        yield Server(process, url, model, codec)
        said = log.read_text()
        assert "a request has failed" not in said
        assert "Exception in ASGI application" not in said
    finally:
        # the engine is a child of vLLM's
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def is_up(url):
    with contextlib.suppress(httpx.HTTPError):
        return httpx.get(f"{url}/health").json() == {"status": "ok", "engine": "ok", "vocoder": "ok"}
    return False


async def events(client, **more):
    """Ask for a stream; return its chunks, without what no two answers share."""
    chunks = []
    async with client.stream("POST", "/v1/chat/completions", json={**BODY, **more, "stream": True}) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        async for line in answer.aiter_lines():
            if line.startswith("data: ") and line != "data: [DONE]":
                chunk = json.loads(line.removeprefix("data: "))
                chunks.append({name: value for name, value in chunk.items() if name not in ("id", "created")})
    return chunks


def deltas(chunks):
    return [choice["delta"] for chunk in chunks for choice in chunk["choices"]]


def sounds(chunks):
    return [delta["audio"] for delta in deltas(chunks) if delta.get("audio")]


def pcm(chunks):
    data = b"".join(base64.b64decode(sound["data"]) for sound in sounds(chunks) if sound.get("data"))
    return np.frombuffer(data, "<i2").astype(int)


def shapes(chunks):
    """The kinds of chunks: what each holds, without how the answer was cut."""
    return {
        (*sorted(chunk), *sorted(delta), *sorted(delta.get("audio") or ()))
        for chunk in chunks
        for delta in deltas([chunk])
    }


async def test_written_answers_are_the_gateways(server):
    async with server.clients() as (plugin, gateway):
        whole, other = [(await c.post("/v1/chat/completions", json=BODY)).json() for c in (plugin, gateway)]
        assert whole["choices"] == other["choices"]
        assert whole["usage"] == other["usage"]
        streamed = await events(plugin)
        text = "".join(delta.get("content") or "" for delta in deltas(streamed))
        assert text == whole["choices"][0]["message"]["content"]
        assert shapes(streamed) == shapes(await events(gateway))
        other_model = {**BODY, "model": "other"}
        refused, as_well = [await c.post("/v1/chat/completions", json=other_model) for c in (plugin, gateway)]
        assert (refused.status_code, refused.json()) == (as_well.status_code, as_well.json())


async def test_spoken_answers_are_the_gateways(server):
    question = {"messages": [spoken(recording(chirps(9)))], **SPEECH, "ignore_eos": True}
    async with server.clients() as (plugin, gateway):
        ours = await events(plugin, **question, stream_options={"include_usage": True})
        theirs = await events(gateway, **question, stream_options={"include_usage": True})
    assert ours[-1]["usage"] == theirs[-1]["usage"]
    assert ours[-1]["usage"]["completion_tokens_details"]["audio_tokens"] > 0
    assert shapes(ours) == shapes(theirs)
    transcript, other = ["".join(s.get("transcript") or "" for s in sounds(chunks)) for chunks in (ours, theirs)]
    assert transcript == other
    assert len(pcm(ours)) == len(pcm(theirs)) > 0
    # pieces cut elsewhere may round a sample the other way, by no more than the last bit
    assert np.abs(pcm(ours) - pcm(theirs)).max() <= 1


async def test_the_engine_keeps_to_a_constraint(server):
    async with server.clients() as (plugin, _):
        body = {**BODY, **SPEECH, "interleave": "units", "ignore_eos": True, "max_tokens": 40}
        usage = (await plugin.post("/v1/chat/completions", json=body)).json()["usage"]
    assert usage["completion_tokens_details"]["audio_tokens"] == usage["completion_tokens"] == 40


async def test_speech_transcriptions_and_conversation_are_there(server):
    async with server.clients() as (plugin, _):
        body = {"model": "model", "input": "hello", "voice": "alloy", "response_format": "wav", "max_tokens": 40}
        said = await plugin.post("/v1/audio/speech", json=body)
        assert said.content[:4] == b"RIFF"
        file = base64.b64decode(recording(chirps(9)))
        form = {"data": {"model": "model", "max_tokens": "30"}, "files": {"file": ("q.wav", file)}}
        assert isinstance((await plugin.post("/v1/audio/transcriptions", **form)).json()["text"], str)
        # three times two seconds are more than SLM_SERVE_MAX_CLIP_SECONDS
        long = base64.b64decode(recording(np.tile(chirps(9), 3)))
        refused = await plugin.post(
            "/v1/audio/transcriptions", data={"model": "model"}, files={"file": ("q.wav", long)}
        )
        assert (refused.status_code, refused.json()["error"]["code"]) == (400, "invalid_audio")
    address = f"{server.url.replace('http', 'ws')}/v1/realtime?model=model"
    async with websockets.connect(address, extra_headers=KEY) as connection:
        assert json.loads(await connection.recv())["type"] == "session.created"


async def test_vllms_own_routes_stay_and_ask_for_our_key(server):
    async with server.clients() as (plugin, _):
        tokens = await plugin.post("/tokenize", json={"model": "model", "prompt": "hello"})
        assert tokens.json()["count"] > 0
        assert (await plugin.get("/version")).json()["version"]
        assert "/tokenize" in (await plugin.get("/openapi.json")).json()["paths"]
        page = (await plugin.get("/metrics")).text
    assert "vllm:num_requests_running" in page
    assert re.search(r'slm_requests_total\{route="/v1/chat/completions",status="200"\} \d', page)
    # vLLM measures requests by the paths of our routes
    assert re.search(r'http_requests_total\{handler="/v1/chat/completions"', page)
    for path in ("/v1/completions", "/tokenize", "/v1/chat/completions", "/metrics"):
        assert (httpx.get if path == "/metrics" else httpx.post)(f"{server.url}{path}").status_code == 401
    assert httpx.get(f"{server.url}/v1/models", headers=KEY).json()["data"][0]["slm"]["n_units"] == UNITS


async def test_a_stream_that_is_left_stops_the_engine(server):
    async def engine(client):
        page = (await client.get("/metrics")).text
        return [
            sum(float(value) for value in re.findall(rf"^vllm:{name}\{{[^}}]*\}} (\S+)$", page, re.MULTILINE))
            for name in ("num_requests_running", "generation_tokens_total")
        ]

    async with server.clients() as (plugin, _):
        _, before = await engine(plugin)
        body = {**BODY, "stream": True, "max_tokens": 8000, "ignore_eos": True}
        async with plugin.stream("POST", "/v1/chat/completions", json=body) as answer:
            assert await anext(answer.aiter_lines())
        while (after := await engine(plugin))[0]:
            await asyncio.sleep(0.1)
    # what is not stopped goes on to the last token
    assert after[1] - before < 8000


async def test_the_end_of_the_server_is_no_end_of_an_answer(server):
    body = {**BODY, "stream": True, "max_tokens": 8000, "ignore_eos": True}
    said = ""
    async with (
        asyncio.timeout(60),
        server.clients() as (plugin, _),
        plugin.stream("POST", "/v1/chat/completions", json=body) as answer,
    ):
        lines = answer.aiter_lines()
        assert "assistant" in await anext(lines)
        server.process.terminate()
        with contextlib.suppress(httpx.RemoteProtocolError, httpx.ReadError):
            said = "".join([line async for line in lines])
    assert '"finish_reason":"' not in said
    await asyncio.to_thread(server.process.wait, 60)
