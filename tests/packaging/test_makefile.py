"""What ``make`` would do, by its dry run in a copy of the tree that has no environment yet."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="make is needed: apt-get install make")
PROGRAMS = ("bash", "cat", "cksum", "make", "python3", "sh", "tr", "test", "touch", "rm")


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    """A folder for PATH that holds what the Makefile may use, and neither uv nor a GPU's tools."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in PROGRAMS:
        found = shutil.which(name)
        assert found is not None, name
        (folder / name).symlink_to(found)
    return folder


def dry_run(tree: Path, programs: Path, *arguments: str) -> str:
    command = [str(programs / "make"), "--dry-run", "--no-print-directory", *arguments]
    environment = {"PATH": str(programs), "HOME": str(programs)}
    return subprocess.run(command, cwd=tree, env=environment, capture_output=True, text=True, check=True).stdout


def test_set_up_brings_uv_where_there_is_none(tree: Path, programs: Path):
    steps = dry_run(tree, programs, "setup", "PYTHON=python3")
    order = ["python3 -m venv .uv", "pip install --quiet uv", "uv venv", "constraints-cpu.txt", "--editable ."]
    assert [steps.index(step) for step in order] == sorted(steps.index(step) for step in order)
    assert ".uv/bin/uv pip sync" in steps


def test_set_up_uses_the_uv_that_is_there(tree: Path, programs: Path):
    (programs / "uv").write_text("#!/bin/sh\n", encoding="utf-8")
    (programs / "uv").chmod(0o755)
    steps = dry_run(tree, programs, "setup", "PYTHON=python3")
    assert "-m venv .uv" not in steps
    assert f"{programs}/uv pip sync" in steps


@pytest.mark.parametrize(("status", "device"), [(0, "gpu"), (1, "cpu")])
def test_a_working_gpu_decides_which_engine_is_installed(status: int, device: str, tree: Path, programs: Path):
    (programs / "nvidia-smi").write_text(f"#!/bin/sh\nexit {status}\n", encoding="utf-8")
    (programs / "nvidia-smi").chmod(0o755)
    assert f"constraints-{device}.txt" in dry_run(tree, programs, "setup", "PYTHON=python3")


@pytest.mark.parametrize("target", ["demo", "replica", "test", "test-all", "check"])
def test_every_job_sets_up_first(target: str, tree: Path, programs: Path):
    steps = dry_run(tree, programs, target, "PYTHON=python3")
    assert steps.index("pip sync") < steps.index(".venv/bin/", steps.index("--editable ."))


def test_nothing_is_done_where_the_environment_is_as_it_should_be(tree: Path, programs: Path, tmp_path: Path):
    copy = tmp_path / "copy"
    shutil.copytree(tree, copy)
    (copy / ".venv/bin").mkdir(parents=True)
    (copy / ".venv/bin/python").touch()
    (copy / ".uv/bin").mkdir(parents=True)
    (copy / ".uv/bin/uv").touch()
    stamps = re.findall(r"touch (\.venv/\S+)", dry_run(copy, programs, "setup", "PYTHON=python3"))
    assert len(stamps) == 2
    for stamp in stamps:
        (copy / stamp).touch()
    assert "uv" not in dry_run(copy, programs, "setup", "PYTHON=python3")
    with (copy / "slm_plugin/host/autoload/slm_plugin_autoload.py").open("a", encoding="utf-8") as file:
        file.write("# changed\n")
    again = dry_run(copy, programs, "setup", "PYTHON=python3")
    assert "--editable ." in again
    assert "pip sync" not in again


def test_without_a_fitting_python_the_message_says_what_to_do(tree: Path, programs: Path):
    command = [str(programs / "make"), "setup", "PYTHON="]
    environment = {"PATH": str(programs), "HOME": str(programs)}
    done = subprocess.run(command, cwd=tree, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "Python 3.11 or newer is needed; set PYTHON=/path/to/it." in done.stderr
    assert not (tree / ".uv").exists()
