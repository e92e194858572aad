"""Claim: the autoload files cost an interpreter start at most 1 ms, and every import nanoseconds.

Two environments made by ``venv`` from this interpreter differ only in the three autoload files; runs of
``python -c pass`` alternate between them, so that drift of the machine hits both alike. Times are of
the processor, user and system, because the wall clock also measures who else is busy. Prints the
medians and the median of the paired differences; exits with 1 where that is over the budget.

    python benchmarks/activation.py [--runs 300]
"""

from __future__ import annotations

import argparse
import compileall
import importlib.util
import os
import shutil
import statistics
import sys
import tempfile
import timeit
import venv
from pathlib import Path

AUTOLOAD = Path(__file__).resolve().parent.parent / "slm_plugin" / "host" / "autoload"
BUDGET_MS = 1.0


def make_environment(folder: Path, autoload: bool) -> Path:
    """Make an empty environment, with or without the autoload files, and return its interpreter."""
    venv.create(folder, symlinks=True)
    (site_packages,) = folder.glob("lib/python*/site-packages")
    if autoload:
        for file in AUTOLOAD.glob("slm_plugin_autoload.*"):
            shutil.copy(file, site_packages)
    # pip does so at installation; where nobody does and PYTHONDONTWRITEBYTECODE is set, it costs a compilation
    compileall.compile_dir(site_packages, quiet=2)
    return folder / "bin" / "python"


def start_ms(interpreter: Path) -> float:
    """Return the processor time in milliseconds of one interpreter that does nothing."""
    process = os.posix_spawn(interpreter, [str(interpreter), "-c", "pass"], os.environ)
    _, status, usage = os.wait4(process, 0)
    assert status == 0, f"{interpreter} ended with {status}"
    return (usage.ru_utime + usage.ru_stime) * 1000


def per_import_ns(module_file: Path) -> float:
    """Return the nanoseconds that the finder adds to the import of a module that is not the host's."""
    spec = importlib.util.spec_from_file_location("slm_plugin_autoload", module_file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    calls = 200_000
    names = {"find_spec": module.HostFinder.find_spec}
    return min(timeit.repeat('find_spec("json", None)', globals=names, number=calls, repeat=5)) / calls * 1e9


def main() -> int:
    """Measure, print, and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=300, help="pairs of starts")
    n_runs = parser.parse_args().runs
    with tempfile.TemporaryDirectory() as temporary:
        with_files = make_environment(Path(temporary) / "with", autoload=True)
        without = make_environment(Path(temporary) / "without", autoload=False)
        for interpreter in (with_files, without) * 3:
            start_ms(interpreter)  # the disk cache is warm afterwards
        pairs = [(start_ms(with_files), start_ms(without)) for _ in range(n_runs)]
    difference = statistics.median(on - off for on, off in pairs)
    print(f"{sys.implementation.name} {sys.version.split()[0]}, {n_runs} pairs of starts")
    print(f"with autoload     {statistics.median(on for on, _ in pairs):7.2f} ms (median)")
    print(f"without           {statistics.median(off for _, off in pairs):7.2f} ms (median)")
    print(f"difference        {difference:7.2f} ms (median of pairs), budget {BUDGET_MS} ms")
    print(f"per import        {per_import_ns(AUTOLOAD / 'slm_plugin_autoload.py'):7.0f} ns")
    return 0 if difference <= BUDGET_MS else 1


if __name__ == "__main__":
    sys.exit(main())
