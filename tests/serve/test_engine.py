"""The parts of starting vLLM that need no vLLM; the real one is in test_vllm.py."""

import os
import signal
import socket
import subprocess
import sys
import time

import pytest

from slm_plugin.errors import ConfigError, EngineError
from slm_serve import engine as engine_module
from slm_serve.engine import Engine, cpu_arguments, engine_environment, free_port, read_config
from slm_serve.ops.auth import read_keys
from slm_serve.server import listen


def test_the_environment_of_a_cpu_engine():
    given = {"PATH": "x", "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "3"}
    result = engine_environment(given, cpu=True)
    assert result == {"PATH": "x", "TORCHDYNAMO_DISABLE": "1", "OMP_NUM_THREADS": "3"}
    assert engine_environment(given, cpu=False) == {"PATH": "x", "OMP_NUM_THREADS": "3"}
    assert "PYTHONDONTWRITEBYTECODE" in given


def test_the_cache_of_a_cpu_engine_holds_four_sequences():
    config = {
        "max_position_embeddings": 131_072,
        "num_hidden_layers": 16,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "head_dim": 64,
    }
    arguments = cpu_arguments(config)
    # 2 * 16 layers * 8 heads * 64 numbers * 4 bytes = 64 KiB a token; 4 * 8192 tokens are 2 GiB
    assert arguments[arguments.index("--kv-cache-memory-bytes") + 1] == str(2 * 2**30)
    assert arguments[arguments.index("--max-model-len") + 1] == "8192"
    assert "--enforce-eager" in arguments
    assert arguments[arguments.index("--dtype") + 1] == "float32"


def test_the_cache_of_a_tiny_model_is_64_mebibytes():
    arguments = cpu_arguments({"max_position_embeddings": 512, "hidden_size": 64, "num_attention_heads": 2})
    assert arguments[-1] == str(64 * 2**20)
    assert arguments[arguments.index("--max-model-len") + 1] == "512"


def test_a_folder_that_is_no_model_is_refused(tmp_path):
    with pytest.raises(EngineError, match=r"config\.json cannot be read"):
        read_config(str(tmp_path))


@pytest.mark.anyio
async def test_an_engine_that_dies_tells_the_end_of_its_log(tmp_path, monkeypatch):
    monkeypatch.setattr(engine_module, "on_cpu", lambda: False)
    engine = Engine("nowhere", tmp_path / "log")
    program = "import sys; print('the reason', file=sys.stderr); sys.exit(3)"
    monkeypatch.setattr(engine, "_command", lambda: [sys.executable, "-c", program])
    engine.start()
    with pytest.raises(EngineError, match=r"code 3 while starting(.|\n)*the reason"):
        await engine.ready()
    engine.stop()


def test_the_engine_is_a_group_of_its_own_in_our_session(tmp_path, monkeypatch):
    # a signal from the terminal is for the gateway alone; a session of its own would compete with ours for processors
    monkeypatch.setattr(engine_module, "on_cpu", lambda: False)
    engine = Engine("nowhere", tmp_path / "log")
    program = "import os, signal; print(os.getsid(0), os.getpgid(0), os.getpid(), flush=True); signal.pause()"
    monkeypatch.setattr(engine, "_command", lambda: [sys.executable, "-c", program])
    engine.start()
    started = engine._process.pid
    try:
        while not (said := (tmp_path / "log").read_text()).endswith("\n"):
            assert engine.exit_code() is None
            time.sleep(0.05)
    finally:
        engine.stop()
    session, group, process = map(int, said.split())
    assert (session, group) == (os.getsid(0), started)
    # the process between the two ends it with the gateway
    assert process != started


def test_stopping_ends_the_children_of_the_engine_too(tmp_path, monkeypatch):
    monkeypatch.setattr(engine_module, "on_cpu", lambda: False)
    engine = Engine("nowhere", tmp_path / "log")
    # a parent that dies at once on SIGTERM and a child that will not hear of it, holding a pipe open
    child = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); signal.pause()"
    parent = (
        "import signal, subprocess, sys;"
        f"subprocess.Popen([sys.executable, '-c', {child!r}], stdout=open({str(tmp_path / 'fifo')!r}, 'w'));"
        "signal.pause()"
    )
    monkeypatch.setattr(engine, "_command", lambda: [sys.executable, "-c", parent])
    os.mkfifo(tmp_path / "fifo")
    engine.start()
    with (tmp_path / "fifo").open() as pipe:
        assert pipe.readline() == "up\n"
        engine.stop()
        # the end of the pipe: nobody is left that holds it
        assert pipe.read() == ""


def test_an_engine_ends_when_its_gateway_is_killed(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    # the engine holds the pipe open for as long as it lives
    fifo = str(tmp_path / "fifo")
    child = f"import signal; pipe = open({fifo!r}, 'w'); print('up', file=pipe, flush=True); signal.pause()"
    gateway = (
        "import signal, sys; from pathlib import Path; from slm_serve import engine;"
        "engine.on_cpu = lambda: False;"
        f"running = engine.Engine('nowhere', Path({str(tmp_path / 'log')!r}));"
        f"running._command = lambda: [sys.executable, '-c', {child!r}];"
        "running.start(); signal.pause()"
    )
    process = subprocess.Popen([sys.executable, "-c", gateway])
    with (tmp_path / "fifo").open() as pipe:
        assert pipe.readline() == "up\n"
        process.send_signal(signal.SIGKILL)
        assert pipe.read() == ""
    assert process.wait() == -signal.SIGKILL


def test_the_engine_behind_a_gateway_has_no_routes_of_ours():
    environment = engine_environment({"VLLM_PLUGINS": "slm_serve,other"}, cpu=False)
    assert environment["VLLM_PLUGINS"] == "other"
    # an empty list still keeps all others out
    assert engine_environment({"VLLM_PLUGINS": "slm_serve"}, cpu=False)["VLLM_PLUGINS"] == ""
    assert "VLLM_PLUGINS" not in engine_environment({}, cpu=False)


def test_a_free_port_can_be_listened_on():
    port = free_port()
    with listen("127.0.0.1", port) as listener:
        assert listener.getsockname()[1] == port


def test_a_taken_port_is_told_before_anything_is_loaded():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=f"127.0.0.1:{port} cannot be listened on"):
            listen("127.0.0.1", port)


def test_keys_are_one_a_line(tmp_path):
    path = tmp_path / "keys"
    path.write_text("# ours\none\n\n  two \n")
    assert read_keys(path) == ["one", "two"]
    path.write_text("# none\n")
    with pytest.raises(ConfigError, match="holds no key"):
        read_keys(path)
    with pytest.raises(ConfigError, match="cannot be read"):
        read_keys(tmp_path / "absent")


TREE = """
import os, signal, subprocess, sys, time
# a worker that ignores SIGTERM in a session of its own, and the launcher that loads the model
child = subprocess.Popen([sys.executable, "-c", "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
    "print('up', flush=True); time.sleep(600)"], start_new_session=True, stdout=subprocess.PIPE)
child.stdout.readline()
print(os.getpid(), child.pid, flush=True)
time.sleep(600)
"""

GATEWAY = """
import sys, time
from pathlib import Path
from slm_serve import engine
engine.on_cpu = lambda: False
made = engine.Engine("nowhere", Path(sys.argv[1]))
made._command = lambda: [sys.executable, "-c", sys.argv[2]]
made.start()
time.sleep(600)
"""


def is_running(process: int) -> bool:
    try:
        with open(f"/proc/{process}/stat", encoding="ascii") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.parametrize("how", ["the gateway is killed", "the command is killed"])
def test_nothing_of_the_engine_outlives_its_gateway_even_while_it_loads(tmp_path, how):
    log = tmp_path / "log"
    gateway = subprocess.Popen([sys.executable, "-c", GATEWAY, str(log), TREE])
    while not (log.exists() and log.read_text().endswith("\n")):
        assert gateway.poll() is None
        time.sleep(0.02)
    command, worker = map(int, log.read_text().split())
    os.kill(gateway.pid if how == "the gateway is killed" else command, signal.SIGKILL)
    while is_running(command) or is_running(worker):
        time.sleep(0.02)
    gateway.kill()
    gateway.wait()
