"""`slm serve` in this process: what it refuses, and that it ends as it should, without vLLM."""

import asyncio
import os
import signal
import sys

import pytest
import typer
from typer.testing import CliRunner

from slm_plugin.errors import EngineError
from slm_serve import cli, engine, loading
from slm_serve.app import create_app
from slm_serve.background import Background
from slm_serve.fakes import FakeCodec
from slm_serve.ops.metrics import Metrics
from slm_serve.running import Plan, _serve, run
from slm_serve.server import listen
from slm_serve.service import Service
from tiny_models import make_tokenizer

UNITS = 50


@pytest.fixture
def model(tmp_path, tokenizer):
    folder = tmp_path / "model"
    tokenizer.save_pretrained(folder)
    (folder / "config.json").write_text('{"model_type": "llama"}')
    return folder


@pytest.fixture
def serve(model, monkeypatch):
    """Run the command with a fake codec; what would start vLLM fails the test."""
    monkeypatch.setattr(loading, "load_codec", lambda name, registry: FakeCodec(int(name)))
    monkeypatch.setattr(loading.Registry, "load", lambda: None)
    app = typer.Typer()
    app.command()(cli.serve)

    def call(*arguments, codec=UNITS, folder=model):
        return CliRunner().invoke(app, ["--model", str(folder), "--codec", str(codec), "--port", "0", *arguments])

    return call


def refused(result, words):
    assert result.exit_code == 1, result.output
    assert words in result.stderr
    assert result.stdout == ""
    assert "starting vLLM" not in result.stderr


def test_a_codec_of_another_size_is_refused_before_vllm_starts(serve, model):
    refused(serve(codec=UNITS + 1), f"the model in {model} has 50 units, the codec 51 has 51")


def test_a_model_without_units_is_refused_before_vllm_starts(serve, model):
    make_tokenizer().save_pretrained(model)
    refused(serve(), "has no unit tokens")


def test_a_folder_that_is_no_model_is_refused(serve, tmp_path):
    refused(serve(folder=tmp_path), "--model takes the folder of an exported model")


def test_a_model_without_a_tokenizer_is_refused(serve, tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    refused(serve(folder=tmp_path), f"the tokenizer in {tmp_path} cannot be loaded")


def test_a_key_file_that_is_not_there_is_refused(serve, tmp_path):
    refused(serve("--api-key-file", str(tmp_path / "none")), "--api-key-file")


def test_an_engine_that_is_not_there_is_told(serve):
    refused(
        serve("--vllm-url", f"http://127.0.0.1:{engine.free_port()}"), "no vLLM server answers at http://127.0.0.1:"
    )


@pytest.fixture
def make_app(tokenizer, vocabulary, codec):
    return lambda backend: create_app(Service(tokenizer, vocabulary, codec, backend))


@pytest.fixture
def fake_engine(tmp_path, monkeypatch):
    """An engine that is a script of a few lines."""
    monkeypatch.setattr(engine, "on_cpu", lambda: False)

    def make(program):
        made = engine.Engine("nowhere", tmp_path / "log")
        monkeypatch.setattr(made, "_command", lambda: [sys.executable, "-c", program, str(made._port)])
        return made

    return make


# as much of vLLM as says that it is healthy and can generate
STAND_IN = """
import http.server, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def answer(self, body):
        self.send_response(200); self.send_header("content-length", str(len(body))); self.end_headers()
        self.wfile.write(body)
    def do_GET(self):
        self.answer(b'{"data": []}')
    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        self.answer(b'data: {"choices": [{"token_ids": [1], "finish_reason": "length"}]}' + bytes([10, 10]))
http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


def serve_until(made, make_app, moment, capsys):
    """Run the server, send SIGTERM to it when ``moment`` is said, and return what it said on stdout."""
    said = []

    async def go():
        with listen("127.0.0.1", 0) as listener:
            running = asyncio.create_task(run(Plan(listener, "127.0.0.1", make_app, made)))
            while moment not in "".join(said) and not running.done():
                await asyncio.sleep(0.01)
                captured = capsys.readouterr()
                said.extend([captured.out, captured.err])
            os.kill(os.getpid(), signal.SIGTERM)
            await running

    before = signal.getsignal(signal.SIGTERM)
    asyncio.run(go())
    assert signal.getsignal(signal.SIGTERM) == before
    return "".join(said)


def test_a_server_says_that_it_is_ready_and_ends_on_a_signal(fake_engine, make_app, capsys):
    made = fake_engine(STAND_IN)
    said = serve_until(made, make_app, "ready http://127.0.0.1:", capsys)
    assert "ready" in said.splitlines()[-1]
    assert made._process is None


def test_nothing_asks_the_engine_any_more_when_the_server_lets_go_of_it():
    # a keeper of the engine would find the connections to it closed, and complain
    class Ending:
        should_exit = False

        async def serve(self, sockets):
            while not self.should_exit:
                await asyncio.sleep(0.001)
            await asyncio.sleep(0.001)
            self.watched = "engine" in running

    async def go():
        async def watch():
            running.add("engine")
            try:
                await asyncio.sleep(60)
            finally:
                running.discard("engine")

        server, stopping, background = Ending(), asyncio.Event(), Background(Metrics())
        background.start("engine", watch)
        asyncio.get_running_loop().call_later(0.01, stopping.set)
        await _serve(server, None, stopping, background)
        return server.watched

    running = set()
    assert asyncio.run(go()) is False


def test_a_signal_while_vllm_is_starting_ends_both(fake_engine, make_app, capsys):
    made = fake_engine("import signal; signal.pause()")
    said = serve_until(made, make_app, "starting vLLM", capsys)
    assert "ready" not in said
    assert made._process is None


def test_an_engine_that_loads_and_cannot_generate_is_told(fake_engine, make_app):
    made = fake_engine(STAND_IN.replace('"token_ids"', '"other"').replace('"finish_reason": "length"', '"text": "x"'))
    said = pytest.raises(EngineError, match="loaded the model but cannot run it")
    with listen("127.0.0.1", 0) as listener, said:
        asyncio.run(run(Plan(listener, "127.0.0.1", make_app, made)))
    assert made._process is None
