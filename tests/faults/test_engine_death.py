"""The engine is killed under its answers: a clean 503, a new engine, and nothing lost that was finished."""

import asyncio
import os
import signal
import sys
from contextlib import asynccontextmanager

import httpx
import psutil
import pytest

from faults.conftest import body
from slm_serve import engine as engine_module
from slm_serve import supervisor
from slm_serve.app import create_app
from slm_serve.engine import Engine
from slm_serve.running import Plan, run
from slm_serve.server import listen
from slm_serve.service import Service

pytestmark = pytest.mark.anyio

# as much of vLLM as lists a model, is healthy, and generates: two tokens, or one and then silence for a prompt that
# is longer than the others
STAND_IN = """
import http.server, json, signal, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def log_message(self, *_): pass
    def answer(self, body):
        self.send_response(200); self.send_header("content-length", str(len(body))); self.end_headers()
        self.wfile.write(body)
    def do_GET(self):
        self.answer(json.dumps({"data": [{"id": "fake", "max_model_len": 8192}]}).encode())
    def do_POST(self):
        wish = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.send_response(200); self.end_headers()
        for reason in (None, "stop"):
            choice = {"token_ids": [TOKEN], "finish_reason": reason}
            self.wfile.write(b"data: " + json.dumps({"choices": [choice]}).encode() + bytes([10, 10]))
            self.wfile.flush()
            if len(wish["prompt"]) > 30: signal.pause()
http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""
LONG = [{"role": "user", "content": "hello " * 40}]


@pytest.fixture
def running(tokenizer, vocabulary, codec, write, tmp_path, monkeypatch):
    """Run everything that `slm serve` runs, with a stand-in for vLLM in a process of its own."""
    monkeypatch.setattr(engine_module, "on_cpu", lambda: False)
    monkeypatch.setattr(supervisor, "POLL_S", 0.01)
    program = STAND_IN.replace("TOKEN", str(write("a")[0]))
    made = Engine("nowhere", tmp_path / "log")
    monkeypatch.setattr(made, "_command", lambda: [sys.executable, "-S", "-c", program, str(made._port)])
    services = []

    def make_app(backend):
        services.append(Service(tokenizer, vocabulary, codec, backend))
        return create_app(services[-1])

    @asynccontextmanager
    async def opened():
        with listen("127.0.0.1", 0) as listener:
            task = asyncio.create_task(run(Plan(listener, "127.0.0.1", make_app, made)))
            url = "http://{}:{}".format(*listener.getsockname())
            async with httpx.AsyncClient(base_url=url, timeout=None) as http:
                while True:
                    try:
                        assert not task.done(), await task
                        if (await http.get("/health")).status_code == 200:
                            break
                    except httpx.TransportError:
                        await asyncio.sleep(0.01)
                yield http, made, services[0], task
            if not task.done():
                os.kill(os.getpid(), signal.SIGTERM)
            await task

    return opened


async def ask(http, **more):
    return await http.post("/v1/chat/completions", content=body(**more))


async def test_an_engine_that_is_killed_is_told_and_comes_back(running):
    async with running() as (http, engine, service, _):
        assert (await ask(http)).json()["choices"][0]["message"]["content"] == "aa"
        whole = asyncio.create_task(ask(http, messages=LONG))
        streamed = asyncio.create_task(ask(http, messages=LONG, stream=True))
        while b"slm_running 2.0" not in service.metrics.page():
            await asyncio.sleep(0.01)
        # the stream has begun; the whole answer has not
        while b"slm_time_to_first_text_seconds_count 3.0" not in service.metrics.page():
            await asyncio.sleep(0.01)
        first = engine._process.pid
        os.kill(first, signal.SIGKILL)
        refused = await whole
        assert refused.status_code == 503
        assert refused.json()["error"]["code"] == "engine_unavailable"
        assert int(refused.headers["retry-after"]) > 0
        ended = await streamed
        assert ended.status_code == 200
        assert '"content":"a"' in ended.text
        assert "engine_unavailable" in ended.text.strip().splitlines()[-1]
        # it may be away for a moment, which is told cleanly, and then answers as before
        while (answer := await ask(http)).status_code == 503:
            await asyncio.sleep(0.01)
        assert answer.json()["choices"][0]["message"]["content"] == "aa"
        assert (await http.get("/health")).json() == {"status": "ok", "engine": "ok", "vocoder": "ok"}
        assert engine._process.pid != first
        assert not psutil.pid_exists(first) or psutil.Process(first).status() == psutil.STATUS_ZOMBIE
        assert b"slm_engine_restarts_total 1.0" in service.metrics.page()
        assert b"slm_running 0.0" in service.metrics.page()


async def test_a_signal_lets_answers_end_and_takes_no_new_ones(running):
    async with running() as (http, engine, service, task):
        begun = asyncio.create_task(ask(http, messages=LONG, stream=True))
        while b"slm_time_to_first_text_seconds_count 1.0" not in service.metrics.page():
            await asyncio.sleep(0.01)
        os.kill(os.getpid(), signal.SIGTERM)
        url = str(http.base_url)
        async with httpx.AsyncClient(base_url=url, timeout=None) as other:
            while True:
                try:
                    await other.get("/health/live")
                except httpx.TransportError:
                    # refused, or let in and hung up on in the moment of closing
                    break
        # nobody is let in any more, and the answer still goes on
        assert not begun.done()
        assert not task.done()
        assert engine.exit_code() is None
        # a second signal ends it
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.wait((begun, task), return_when=asyncio.ALL_COMPLETED)
        assert engine._process is None
        assert begun.exception() is not None or "[DONE]" not in begun.result().text
