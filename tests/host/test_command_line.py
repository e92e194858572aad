"""The stock commands in processes of their own: chat, api, and plain error messages."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
import yaml

from host.world import UNITS, export_config, train_config

pytestmark = [pytest.mark.host, pytest.mark.xdist_group("command_line")]

TIMEOUT_SECONDS = 300
BIN = Path(sys.executable).parent


def environment(**more):
    # torchrun must be found, as in an activated environment
    return {**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}", "OMP_NUM_THREADS": "1", **more}


def host(command, config, folder, **more):
    path = folder / f"{command}.yaml"
    path.write_text(yaml.safe_dump(config))
    return subprocess.run(
        [BIN / "llamafactory-cli", command, path],
        env=environment(**more),
        capture_output=True,
        text=True,
        timeout=TIMEOUT_SECONDS,
        check=False,
    )


def test_a_mistake_in_a_yaml_ends_the_command_with_one_message_and_no_traceback(llm, data, tmp_path):
    config = train_config(llm, data, tmp_path / "x", slm={"stage": "ars"})
    done = host("train", config, tmp_path)
    assert done.returncode == 1
    line = "slm: ConfigError: train.yaml: slm.stage: no stage is called 'ars'. Did you mean 'asr'?"
    assert line in done.stderr
    assert "Traceback" not in done.stderr


def test_switched_off_the_host_refuses_the_block_itself(llm, data, tmp_path):
    done = host("train", train_config(llm, data, tmp_path / "x"), tmp_path, SLM_PLUGIN_DISABLE="1")
    assert done.returncode != 0
    assert "slm" in done.stderr
    assert "not used by the HfArgumentParser" in done.stderr


def test_chat_answers_with_units_and_lmf_is_the_same_command(units_base, tmp_path):
    config = {
        "model_name_or_path": str(units_base),
        "template": "llama3",
        "infer_dtype": "float32",
        "max_new_tokens": 8,
        "slm": {"units": {"count": UNITS}},
    }
    path = tmp_path / "chat.yaml"
    path.write_text(yaml.safe_dump(config))
    done = subprocess.run(
        [shutil.which("lmf", path=str(BIN)), "chat", path],
        input="hello <|3|>\nexit\n",
        env=environment(CUDA_VISIBLE_DEVICES=""),
        capture_output=True,
        text=True,
        timeout=TIMEOUT_SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "Assistant: " in done.stdout
    assert "Traceback" not in done.stderr


def test_api_serves_an_adapter_on_a_units_base(units_base, data, run_host, tmp_path):
    run_host(train_config(units_base, data, tmp_path / "asr"))
    config = export_config(units_base, tmp_path / "unused", adapter=tmp_path / "asr", slm={})
    config = {key: value for key, value in config.items() if not key.startswith("export")}
    path = tmp_path / "api.yaml"
    path.write_text(yaml.safe_dump({**config, "max_new_tokens": 4}))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = (tmp_path / "api.log").open("w+")
    server = subprocess.Popen(
        [BIN / "llamafactory-cli", "api", path],
        env=environment(API_HOST="127.0.0.1", API_PORT=str(port)),
        stdout=log,
        stderr=subprocess.STDOUT,
    )
    try:
        answer = ask(port, server, log)
    finally:
        server.send_signal(signal.SIGINT)
        server.wait(TIMEOUT_SECONDS)
        log.close()
    assert answer["choices"][0]["message"]["role"] == "assistant"
    assert answer["usage"]["completion_tokens"] <= 5


def ask(port, server, log):
    body = json.dumps({"model": "x", "messages": [{"role": "user", "content": "hello <|3|>"}]}).encode()
    url = f"http://127.0.0.1:{port}/v1/chat/completions"
    deadline = time.monotonic() + TIMEOUT_SECONDS
    while time.monotonic() < deadline and server.poll() is None:
        try:
            request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
            with urllib.request.urlopen(request, timeout=60) as response:
                return json.loads(response.read())
        except urllib.error.URLError:
            time.sleep(0.5)
    log.seek(0)
    raise AssertionError(f"no answer; the log ends {log.read()[-3000:]}")
