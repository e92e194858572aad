"""Distributions built from the tree, and environments that hold everything but this project."""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path

import pytest

MakeEnvironment = Callable[[], Path]


def build(root: Path, kind: str, folder: Path) -> Path:
    """Build one distribution with the build backend that is installed, and return its path."""
    command = [sys.executable, "-m", "build", f"--{kind}", "--no-isolation", "--outdir", str(folder), str(root)]
    subprocess.run(command, check=True, capture_output=True)
    (path,) = folder.glob("*.whl" if kind == "wheel" else "*.tar.gz")
    return path


@pytest.fixture(scope="session")
def tree(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the repository as it is now, so that a file edited meanwhile upsets no comparison."""
    copy = tmp_path_factory.mktemp("tree") / "slm_plugin"
    left_out = (
        ".venv",
        ".uv",
        ".git",
        "runs",
        "dist",
        "build",
        "__pycache__",
        ".*_cache",
        ".hypothesis",
        ".coverage*",
    )
    shutil.copytree(root, copy, ignore=shutil.ignore_patterns(*left_out))
    return copy


@pytest.fixture(scope="session")
def wheel(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tree, "wheel", tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="session")
def sdist(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tree, "sdist", tmp_path_factory.mktemp("sdist"))


@pytest.fixture
def make_environment(uv: str, tmp_path: Path) -> MakeEnvironment:
    """Make environments that see the packages of this one, this project excepted; return the interpreter."""
    n_made = 0

    def make() -> Path:
        nonlocal n_made
        n_made += 1
        folder = tmp_path / f"environment-{n_made}"
        subprocess.run([uv, "venv", "--quiet", "--python", sys.executable, str(folder)], check=True)
        # the .pth files of a folder that is itself named in one are not read: an editable install there stays out
        (site_packages(folder) / "shared.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
        return folder / "bin" / "python"

    return make


def site_packages(environment: Path) -> Path:
    """Return where an environment keeps its packages."""
    (folder,) = environment.glob("lib/python*/site-packages")
    return folder
