"""Kill a pipeline before each of its changes to the disk in turn, and run it again: a child of test_killed.

Its argument is an empty folder, which it works in. It prints one JSON line per kill: what had been recorded
as finished, and what the next run skipped, ran and left.
"""

from __future__ import annotations

import io
import itertools
import json
import os
import shutil
import signal
import sys
from pathlib import Path

import yaml
from rich.console import Console

from slm_plugin.pipeline import plan, records, results, runner
from slm_plugin.pipeline.progress import Progress
from slm_plugin.plugins import Registry

CHANGES = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "shutil.rmtree", "subprocess.Popen"}
NAMES = ("one", "left", "right")


def write_pipeline() -> Path:
    def step(name: str, **more: object) -> dict[str, object]:
        # a folder that is left from before, or half of a file, would show
        script = (
            f"mkdir out/{name} && printf {name[0]} > out/{name}/a && echo {name} >> runs && printf x >> out/{name}/a"
        )
        return {"name": name, "command": ["sh", "-c", script], "outputs": [f"out/{name}"], **more}

    steps = [step("one"), step("left"), step("right", needs=["one"])]
    path = Path("pipeline.yaml")
    path.write_text(yaml.safe_dump({"output": "out", "jobs": 2, "steps": steps}))
    return path


def run(registry: Registry, path: Path) -> list[runner.Outcome]:
    with Progress(Console(file=io.StringIO())) as progress:
        pipeline = plan.load(path, registry)
        outcomes = runner.run(pipeline, path, progress)
        results.write_results(pipeline, outcomes)
    return outcomes


def killed_at(number: int, registry: Registry, path: Path) -> bool:
    """Run in a fork that kills itself before its change of that number; tell whether it came that far."""
    child = os.fork()
    if child == 0:
        left = itertools.count(number, -1)

        def count(event: str, arguments: tuple[object, ...]) -> None:
            writes = event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)
            if (event in CHANGES or writes) and next(left) == 1:
                os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(count)
        run(registry, path)
        os._exit(0)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


def main() -> None:
    os.chdir(sys.argv[1])
    registry = Registry.load(entry_points=False)
    for number in itertools.count(1):
        path = write_pipeline()
        killed = killed_at(number, registry, path)
        recorded = [name for name in NAMES if records.read(Path("out"), name) is not None]
        ran = Path("runs").read_text().split() if Path("runs").exists() else []
        outcomes = run(registry, path)
        again = Path("runs").read_text().split()[len(ran) :]
        print(
            json.dumps(
                {
                    "killed": killed,
                    "recorded": recorded,
                    "skipped": [outcome.name for outcome in outcomes if outcome.skipped],
                    "again": sorted(set(again)),
                    "left": {name: Path(f"out/{name}/a").read_text() for name in NAMES},
                    "lineage": sorted(json.loads(Path("out/lineage.json").read_text())),
                }
            ),
            flush=True,
        )
        if not killed:
            return
        shutil.rmtree("out")
        Path("runs").unlink()


if __name__ == "__main__":
    main()
