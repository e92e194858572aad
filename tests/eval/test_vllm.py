"""Every probe gives the same score whichever engine generates; tasks of the harness too, served or not."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import closing
from pathlib import Path

import pytest

from eval.book import score, write
from eval.test_lm_harness import ROWS as TASK_ROWS
from eval.test_lm_harness import write_tasks
from replay_synthesis.world import rows, train_world_model
from slm_plugin.eval.evaluate import evaluate
from slm_plugin.eval.generator import load_generator
from slm_plugin.generation.vllm_engine import child_environment

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that knows a small world by heart: no two tokens are almost equally likely to it."""
    pytest.importorskip("vllm", reason="pip install 'slm-plugin[serve-cpu]'")
    return train_world_model(tmp_path_factory.mktemp("world") / "model")


def test_probes_give_the_same_scores_by_vllm_as_by_transformers(model, registry, tmp_path) -> None:
    data = {stage: write(tmp_path / f"{stage}.jsonl", rows(stage)) for stage in ("llm", "asr", "tts", "sqa")}
    # half of what is expected is wrong, so that a score is neither 0 nor 1
    half = [{**row, "output": "no"} if place % 2 else row for place, row in enumerate(rows("llm"))]
    tasks = write_tasks(tmp_path)
    skills = [
        ("text", "text_match", {"data": write(tmp_path / "half.jsonl", half)}),
        ("asr", "speech_recognition", {"data": data["asr"]}),
        ("units", "unit_error", {"data": data["tts"]}),
        ("form", "interleave_form", {"data": data["tts"]}),
        ("sqa", "spoken_qa", {"data": data["sqa"]}),
        ("surprise", "perplexity", {"data": data["tts"], "stage": "tts", "modality": "units"}),
        ("choices", "lm_harness", {"task": "local_choice", "include": str(tasks)}),
        ("answers", "lm_harness", {"task": "local_answer", "include": str(tasks)}),
    ]
    found = {}
    for engine in ("transformers", "vllm"):
        with closing(load_generator(model, engine=engine)) as generator:
            found[engine] = evaluate(generator, skills, registry)
    assert found["vllm"].pop("surprise").value == pytest.approx(found["transformers"].pop("surprise").value, rel=1e-3)
    assert found["vllm"] == found["transformers"]
    assert found["vllm"]["text"].value == 0.5
    assert found["vllm"]["sqa"].value == 1.0
    assert len(found["vllm"]["choices"].items) == len(TASK_ROWS)


@pytest.mark.slow
def test_a_served_model_is_asked_over_http(model, registry, tmp_path) -> None:
    tasks = write_tasks(tmp_path)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(model), "--port", str(port)]
    command += ["--host", "127.0.0.1", "--served-model-name", "world", "--dtype", "float32", "--enforce-eager"]
    command += ["--kv-cache-memory-bytes", "67108864", "--max-model-len", "512"]
    with (tmp_path / "vllm.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env={**child_environment(), "HF_HUB_OFFLINE": "1"})
    address = f"http://127.0.0.1:{port}"
    try:
        wait_for(address, process, tmp_path / "vllm.log")
        with closing(load_generator(model)) as generator:
            for task in ("local_choice", "local_answer"):
                options = {"task": task, "include": str(tasks), "max_length": 512}
                here = score(registry, "lm_harness", generator, **options)
                there = score(registry, "lm_harness", generator, served=address, served_model="world", **options)
                assert (there.value, there.items) == (here.value, here.items)
                assert [one["answer"] for one in there.examples] == [one["answer"] for one in here.examples]
    finally:
        process.terminate()
        process.wait(60)


def wait_for(address: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 600
    while time.monotonic() < deadline:
        assert process.poll() is None, log.read_text(errors="replace")[-2000:]
        try:
            with urllib.request.urlopen(f"{address}/v1/models", timeout=5) as reply:
                assert json.load(reply)["data"]
                return
        except OSError:
            time.sleep(0.5)
    raise AssertionError("vLLM was not ready within ten minutes")
