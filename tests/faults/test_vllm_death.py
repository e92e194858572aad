"""A real vLLM: killed under its answers, and experts exchanged in it, by `slm serve` as users start it."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import httpx
import psutil
import pytest
import torch
from safetensors.torch import save_file

from serve.test_vllm import UNITS, codec, favour_units
from tiny_models import make_model

__all__ = ["codec"]

pytestmark = [pytest.mark.vllm, pytest.mark.slow, pytest.mark.timeout(1800)]

HELLO = [{"role": "user", "content": "hello, how are you today"}]


def adapter(folder, seed):
    """Write a LoRA adapter that turns the tiny model's answers into others."""
    draw = torch.Generator().manual_seed(seed)
    folder.mkdir(parents=True)
    config = {"peft_type": "LORA", "r": 8, "lora_alpha": 64, "target_modules": ["q_proj", "o_proj"], "bias": "none"}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    tensors = {}
    for layer in range(2):
        for module in ("q_proj", "o_proj"):
            name = f"base_model.model.model.layers.{layer}.self_attn.{module}"
            tensors[f"{name}.lora_A.weight"] = torch.randn(8, 64, generator=draw)
            tensors[f"{name}.lora_B.weight"] = torch.randn(64, 8, generator=draw)
    save_file(tensors, folder / "adapter_model.safetensors")


@pytest.fixture(scope="module")
def server(tmp_path_factory, codec):
    folder = tmp_path_factory.mktemp("served")
    model = make_model(folder / "model", units=UNITS)
    favour_units(model)
    adapter(folder / "experts" / "first", 1)
    served = ["--model", str(model), "--codec", str(codec), "--port", "0", "--experts", str(folder / "experts")]
    log = folder / "server.log"
    with log.open("w") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "slm_serve.cli", *served, "--log-level", "info"],
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
    try:
        line = process.stdout.readline()
        assert line.startswith("ready "), log.read_text()
        with httpx.Client(base_url=line.split()[1], timeout=None) as http:
            http.experts, http.process = folder / "experts", process
            yield http
        process.terminate()
        assert process.wait() == 0, log.read_text()
    finally:
        process.kill()
        process.communicate()


def say(http, model="model", **more):
    body = {"model": model, "messages": HELLO, "temperature": 0, "max_tokens": 30, "ignore_eos": True, **more}
    return http.post("/v1/chat/completions", json=body)


def words(answer):
    assert answer.status_code == 200, answer.text
    return answer.json()["choices"][0]["message"]["content"]


def names(http):
    return {model["id"] for model in http.get("/v1/models").json()["data"]}


def wait_for(condition):
    while not condition():
        time.sleep(0.2)


def engine_of(http):
    """Return vLLM's server, and the processes behind it."""
    (found,) = [
        child
        for child in psutil.Process(http.process.pid).children()
        if "vllm.entrypoints.openai.api_server" in child.cmdline()
    ]
    return found, found.children(recursive=True)


def test_experts_are_exchanged_on_disk_while_it_answers(server):
    plain, first = words(say(server)), words(say(server, "first"))
    assert plain != first
    adapter(server.experts / "second", 2)
    wait_for(lambda: "second" in names(server))
    second = words(say(server, "second"))
    assert len({plain, first, second}) == 3
    # a new version in the place of the old one, moved there as a whole
    adapter(server.experts / ".new", 2)
    shutil.rmtree(server.experts / "first")
    (server.experts / ".new").rename(server.experts / "first")
    wait_for(lambda: words(say(server, "first")) == second)
    shutil.rmtree(server.experts / "second")
    wait_for(lambda: "second" not in names(server))
    assert say(server, "second").status_code == 404
    # what vLLM itself calls it is no name for clients
    assert not any("@" in name for name in names(server))


@pytest.mark.parametrize("victim", ["the server", "the engine behind it"])
def test_an_engine_that_is_killed_comes_back_with_its_experts(server, victim):
    plain, first = words(say(server)), words(say(server, "first"))
    process, behind = engine_of(server)
    with server.stream(
        "POST",
        "/v1/chat/completions",
        json={"model": "model", "messages": HELLO, "stream": True, "max_tokens": 8000, "ignore_eos": True},
    ) as stream:
        lines = stream.iter_lines()
        assert next(lines).startswith("data: ")
        os.kill(
            (process if victim == "the server" else max(behind, key=lambda p: p.memory_info().rss)).pid, signal.SIGKILL
        )
        told = [line for line in lines if line.startswith("data: ")]
    assert "engine_unavailable" in told[-1]
    # away, cleanly
    answer = say(server)
    while answer.status_code != 200:
        assert answer.status_code == 503, answer.text
        assert answer.json()["error"]["code"] == "engine_unavailable"
        assert server.get("/health/live").status_code == 200
        time.sleep(0.2)
        answer = say(server)
    assert words(answer) == plain
    wait_for(lambda: say(server, "first").status_code == 200)
    assert words(say(server, "first")) == first
    assert server.get("/health").json()["status"] == "ok"
    # nothing of the old one is left
    new, _ = engine_of(server)
    assert new.pid != process.pid
    for old in (process, *behind):
        assert not old.is_running() or old.status() == psutil.STATUS_ZOMBIE
