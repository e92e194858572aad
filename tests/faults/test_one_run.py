"""One run at a time in an output folder, down to the last process of an earlier one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from faults.trainings import World, descendants, is_alive, kill, wait_for
from slm_plugin.errors import PipelineError
from slm_plugin.pipeline import lock, processes
from slm_plugin.pipeline.lock import locked, mark, survivors
from slm_plugin.pipeline.processes import CommandChild

# a process in a session of its own that ignores SIGTERM, as a worker that hangs in a driver does; no open file of ours
STUBBORN = """
import os, signal, subprocess, sys, time
if len(sys.argv) > 1:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    open("pid", "w").write(str(os.getpid()))
    while True:
        time.sleep(0.05)
        open("heartbeat", "w").write(str(time.time()))
subprocess.Popen([sys.executable, "stubborn.py", "again"], start_new_session=True)
while not os.path.exists("pid"):
    time.sleep(0.02)
print("started", flush=True)
if os.path.exists("stay"):
    time.sleep(600)
"""


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(processes, "STOP_SECONDS", 0.5)
    Path("stubborn.py").write_text(STUBBORN)
    world = World(tmp_path)
    world.write(steps=[{"name": "one", "command": ["python", "stubborn.py"]}])
    return world


def pid() -> int:
    return int(wait_for(lambda: Path("pid").exists() and Path("pid").read_text()))


def test_a_grandchild_that_ignores_sigterm_ends_with_the_killed_run(world: World):
    Path("stay").touch()
    run = world.start()
    grandchild = pid()
    children = descendants(run)
    assert grandchild in children
    os.kill(run, signal.SIGKILL)
    os.waitpid(run, 0)
    # as long as it is alive no other run begins
    with pytest.raises(PipelineError, match="is using out"), locked(Path("out"), print, wait_seconds=0.0):
        pass
    Path("stay").unlink()
    outcomes, _ = world.run()
    assert not outcomes[0].skipped
    assert not any(is_alive(child) for child in children)


def test_it_ends_with_a_run_that_is_interrupted(world: World):
    Path("stay").touch()
    run = world.start()
    grandchild = pid()
    os.kill(run, signal.SIGINT)
    os.waitpid(run, 0)
    assert not is_alive(grandchild)


def test_it_ends_with_its_step(world: World):
    world.run()
    assert not is_alive(pid())
    assert Path("out/logs/one.log").read_text() == "started\n"


def test_it_ends_with_a_step_of_a_host_that_stays(world: World):
    package = world.folder / "fake" / "llamafactory"
    (package / "train").mkdir()
    (package / "train" / "__init__.py").touch()
    (package / "train" / "tuner.py").touch()
    (package / "cli.py").write_text(
        "import subprocess, sys, os, time\ndef main():\n"
        "    subprocess.Popen([sys.executable, 'stubborn.py', 'again'], start_new_session=True)\n"
        "    while not os.path.exists('pid'): time.sleep(0.02)\n"
        "    os.makedirs('out/asr')\n    open('out/asr/x', 'w').close()\n"
    )
    # the next step, with the host still there, looks for the process
    code = "import os; pid = open('pid').read(); open('seen', 'w').write(str(os.path.exists(f'/proc/{pid}')))"
    steps = [{"name": "asr", "train": "asr.yaml"}, {"name": "look", "command": ["python", "-c", code]}]
    world.write(steps=steps)
    content = yaml.safe_load(Path("pipeline.yaml").read_text())
    content["environment"]["SLM_PLUGIN_STOP_SECONDS"] = "0.5"
    Path("pipeline.yaml").write_text(yaml.safe_dump({**content, "warm_host": True}))
    world.run()
    assert Path("seen").read_text() == "False"


def test_if_whoever_ends_it_is_killed_too_it_is_found_and_named(world: World):
    Path("stay").touch()
    run = world.start()
    grandchild = pid()
    for child in [run, *(child for child in descendants(run) if child != grandchild)]:
        kill(child)
    os.waitpid(run, 0)
    try:
        assert list(survivors(Path("out"))) == [grandchild]
        message = rf"a process of an earlier run, {grandchild} \(\w[^)]*\), is using out; stop it first"
        with pytest.raises(PipelineError, match=message), locked(Path("out"), print, wait_seconds=0.0):
            pass
    finally:
        kill(grandchild)
    wait_for(lambda: not survivors(Path("out")))
    with locked(Path("out"), print, wait_seconds=0.0):
        pass


def test_a_run_waits_for_what_is_left_and_then_goes_on(world: World, monkeypatch: pytest.MonkeyPatch):
    environment = {**os.environ, **mark(Path("out"))}
    left = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1)"], env=environment)
    told: list[str] = []
    monkeypatch.setattr(lock, "POLL_SECONDS", 0.05)
    begun = time.monotonic()
    with locked(Path("out"), told.append):
        assert left.wait() == 0
    assert time.monotonic() - begun > 0.5
    assert len(told) == 1


@pytest.mark.parametrize("words", [["sh", "-c", "exit 3"], ["sh", "-c", "kill -9 $$"], ["no-such-program"]])
def test_the_status_is_that_of_the_command(words: list[str], tmp_path: Path):
    child = CommandChild(words, tmp_path / "log", {"A": "1"})
    assert child.wait() == {"exit 3": 3, "kill -9 $$": -9}.get(words[-1], 127)
    if len(words) == 1:
        assert "no-such-program cannot be started: No such file or directory" in (tmp_path / "log").read_text()


def test_a_command_starts_without_the_settings_of_its_guardian(tmp_path: Path):
    code = "import os, signal, sys; print(signal.pthread_sigmask(0, []), os.environ['A'], sys.flags.isolated)"
    child = CommandChild([sys.executable, "-c", code], tmp_path / "log", {"A": "1"})
    assert child.wait() == 0
    assert (tmp_path / "log").read_text() == "set() 1 0\n"
