"""Claim: ``slm --version`` and ``slm --help`` take under 0.5 s, ``slm units`` of a clip of 1.7 s under 2 s.

Each verb runs in a process of its own, as a shell starts it. Times are of the wall and of the processor (user and
system, child processes included), the best of some runs, because the first one reads from the disk. The claims are
about an idle machine, so processor time is compared with them: the wall clock also measures who else is busy. Beside
them: which libraries of arrays, models and servers the verb imported. ``units`` reads a clip that is made here,
``report`` a folder with a finished run (the one of the tests unless ``--run`` names another).

Exits with 1 if a verb takes longer than the claim.

    python benchmarks/startup.py [--runs 3] [--run FOLDER]
"""

from __future__ import annotations

import argparse
import ast
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import soundfile

ROOT = Path(__file__).resolve().parent.parent
LIBRARIES = (
    "numpy", "scipy", "sklearn", "pandas", "pyarrow", "matplotlib", "av", "soundfile", "pydantic", "torch",
    "transformers", "peft", "datasets", "llamafactory", "vllm", "fastapi", "uvicorn", "jiwer", "mergekit", "lm_eval",
)  # fmt: skip
CLAIMS_S = {"--version": 0.5, "--help": 0.5, "units": 2.0}
PROGRAM = (
    "import sys\nfrom slm_plugin.cli import main\n"
    "try:\n    main()\nfinally:\n"
    f"    sys.stderr.write('\\n' + repr([name for name in {LIBRARIES!r} if name in sys.modules]))\n"
)


def clip(folder: Path) -> Path:
    """Write 1.7 seconds of a tone that comes and goes."""
    times_N = np.arange(int(1.7 * 16_000)) / 16_000
    path = folder / "clip.wav"
    soundfile.write(path, 0.3 * np.sin(2 * np.pi * 220 * times_N) * np.sin(6 * times_N) ** 2, 16_000)
    return path


def finished_run(folder: Path) -> Path:
    """Write the finished run that the tests of the report read."""
    sys.path.insert(0, str(ROOT / "tests"))
    from report.world import write_run
    from slm_plugin.plugins import Registry

    run = folder / "run"
    write_run(run, Registry.load())
    return run


def seconds(arguments: list[str]) -> tuple[float, float]:
    """Return how many seconds a verb takes, as a user starts it: of the processor and of the wall."""
    program = Path(sys.executable).with_name("slm")
    before, begin = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run([program, *arguments], capture_output=True, text=True, check=False)
    wall, after = time.perf_counter() - begin, resource.getrusage(resource.RUSAGE_CHILDREN)
    took = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    if done.returncode not in (0, 1):
        raise SystemExit(f"slm {' '.join(arguments)} ended with {done.returncode}: {done.stderr[-2000:]}")
    return took, wall


def imports(arguments: list[str]) -> list[str]:
    """Return which of :data:`LIBRARIES` a verb imports."""
    done = subprocess.run([sys.executable, "-c", PROGRAM, *arguments], capture_output=True, text=True, check=False)
    return list(ast.literal_eval(done.stderr.splitlines()[-1]))


def main() -> int:
    """Measure, print, and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=3, help="runs of each verb")
    parser.add_argument("--run", type=Path, help="output folder of slm run, for slm report")
    given = parser.parse_args()
    os.environ["COLUMNS"] = "100"
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        run = given.run or finished_run(folder)
        recipe = str(ROOT / "examples/llama3_2_1b/asr.yaml")
        verbs = [["--version"], ["--help"], ["units", "--help"], ["units", str(clip(folder))], ["doctor"]]
        verbs += [["doctor", "--plan", recipe, "--tokens", "1e6", "--gpu", "A100"], ["codec", "show", "tiny"]]
        verbs += [["run", "--dry-run", "examples/tiny/pipeline.yaml"], ["serve", "--help"]]
        verbs += [["report", str(run), "--output", str(folder / "report")]]
        os.chdir(ROOT)
        late = []
        for arguments in verbs:
            times = [seconds(arguments) for _ in range(given.runs)]
            best, wall = min(took for took, _ in times), min(wall for _, wall in times)
            name = " ".join(Path(each).name if "/" in each else each for each in arguments)
            loaded = ", ".join(imports(arguments)) or "none of the libraries"
            print(f"slm {name:<58} {best:5.2f} s of the processor, {wall:5.2f} s   {loaded}")
            if best > CLAIMS_S.get(arguments[0], float("inf")):
                late.append(name)
    if late:
        print(f"slower than claimed: {', '.join(late)}")
    return 1 if late else 0


if __name__ == "__main__":
    sys.exit(main())
