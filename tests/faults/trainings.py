"""A training that takes no time, in place of LLaMA-Factory's, for pipelines that are killed and changed."""

from __future__ import annotations

import io
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console

from slm_plugin.pipeline import plan, runner
from slm_plugin.pipeline.progress import Progress
from slm_plugin.plugins import Registry

FAKE = """
import json, os, pathlib, struct, sys, time, zipfile
import yaml
config = yaml.safe_load(open(sys.argv[2]))
folder = pathlib.Path(config["output_dir"])
begun = config.get("resume_from_checkpoint")
first = json.loads((pathlib.Path(begun) / "trainer_state.json").read_text())["global_step"] if begun else 0
def weights(where, step):
    where.mkdir(parents=True, exist_ok=True)
    header = json.dumps({"a": {"dtype": "U8", "shape": [4], "data_offsets": [0, 4]}}).encode()
    content = struct.pack("<Q", len(header)) + header + struct.pack("<I", step)
    (where / "adapter_model.safetensors").write_bytes(content)
    (where / "trainer_state.json").write_text(json.dumps({"global_step": step}))
for step in range(first + 1, config["max_steps"] + 1):
    with open("steps", "a") as log:
        log.write(f"{config['learning_rate']}:{step}\\n")
    if step % config["save_steps"] == 0:
        checkpoint = folder / f"checkpoint-{step}"
        checkpoint.mkdir(parents=True)
        with zipfile.ZipFile(checkpoint / "optimizer.pt", "w") as file:
            file.writestr("a", "a")
        weights(checkpoint, step)
    while os.path.exists("wait") and step == int(open("wait").read()):
        time.sleep(0.02)
weights(folder, config["max_steps"])
(folder / "rate").write_text(str(config["learning_rate"]))
"""


class World:
    """A working folder with a pipeline of a training and an export of its result.

    Args:
        folder: The working folder; the process must be in it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name, text in (("__init__", ""), ("cli", FAKE)):
            path = folder / "fake" / "llamafactory" / f"{name}.py"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        self.registry = Registry.load(entry_points=False)
        self.write()

    def write(self, learning_rate: float = 0.1, steps: list[dict[str, Any]] | None = None, **more: Any) -> None:
        """Write the pipeline and the YAML of its training."""
        config = {"output_dir": "out/asr", "max_steps": 20, "save_steps": 10, "learning_rate": learning_rate}
        Path("asr.yaml").write_text(yaml.safe_dump({**config, **more}))
        environment = {"PYTHONPATH": str(self.folder / "fake"), "SLM_PLUGIN_DISABLE": "1"}
        found = steps or [{"name": "asr", "train": "asr.yaml"}]
        Path("pipeline.yaml").write_text(yaml.safe_dump({"output": "out", "environment": environment, "steps": found}))

    def run(self, restart: bool = False) -> tuple[list[runner.Outcome], str]:
        """Run the pipeline; return its outcomes and what was shown."""
        console = Console(file=io.StringIO(), width=300)
        with Progress(console) as progress:
            outcomes = runner.run(self.plan(), Path("pipeline.yaml"), progress, restart)
        return outcomes, console.file.getvalue()

    def plan(self) -> plan.Pipeline:
        """Load the pipeline."""
        return plan.load(Path("pipeline.yaml"), self.registry)

    def intention(self, restart: bool = False) -> runner.Intention:
        """Return what a run would do with the training."""
        return runner.intentions(self.plan(), restart)[0]

    def start(self) -> int:
        """Run the pipeline in a fork, which spares the imports of ``slm run``; return its process id."""
        child = os.fork()
        if child == 0:
            status = 1
            try:
                self.run()
                status = 0
            finally:
                os._exit(status)
        return child

    def killed_at(self, step: int) -> None:
        """Run and kill -9 at a step of the training; return when the training has ended too."""
        Path("wait").write_text(str(step))
        pid = self.start()
        wait_for(lambda: self.steps()[-1:] and self.steps()[-1].endswith(f":{step}"))
        children = descendants(pid)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        wait_for(lambda: not any(map(is_alive, children)))
        Path("wait").unlink()

    def steps(self) -> list[str]:
        """Return the steps that were trained so far, ``rate:step`` each."""
        return Path("steps").read_text().split() if Path("steps").exists() else []


def wait_for(condition: Callable[[], Any], seconds: float = 60.0) -> Any:
    """Wait until a condition holds and return its value."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := condition():
            return found
        time.sleep(0.02)
    raise AssertionError(f"it did not happen within {seconds:.0f} s")


def descendants(pid: int) -> list[int]:
    """Return the processes below a process."""
    found, todo = [], [pid]
    while todo:
        parent = todo.pop()
        for task in Path(f"/proc/{parent}/task").glob("*/children"):
            todo += map(int, task.read_text().split())
        found.append(parent)
    return found[1:]


def is_alive(pid: int) -> bool:
    """Tell whether a process has not ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] != "Z"
    except OSError:
        return False


def kill(pid: int) -> None:
    """Kill a process if it is alive."""
    if is_alive(pid):
        os.kill(pid, signal.SIGKILL)
