"""What every test shares: the tree's root, the built-in registry, and an environment without a network."""

from __future__ import annotations

import gc
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import settings

from slm_plugin.plugins import Registry

# before any test imports the libraries that read them
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
# the processes that tests start import torch and the host: minutes in all where none may keep its bytecode
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
# no test compares times, those of Hypothesis neither: a busy machine is no failure
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")


@pytest.fixture(scope="module", autouse=True)
def _what_was_imported_is_no_garbage() -> None:
    """Let collections of garbage pass over what lives by now: the host makes one after every training."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository."""
    return Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def tracked(root: Path) -> frozenset[str]:
    """The files that git tracks; what a command left in the tree, such as a log, is none of them."""
    command = ["git", "ls-files", "-z"]
    listed = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip(f"{root} is no git checkout: {listed.stderr.strip()}")
    return frozenset(name for name in listed.stdout.split("\0") if name and (root / name).exists())


@pytest.fixture(scope="session")
def registry() -> Registry:
    """What the built-ins offer, without outside plugins."""
    return Registry.load(entry_points=False)


@pytest.fixture(scope="session")
def uv(root: Path) -> str:
    """The uv program: the one on PATH, else the one that ``make setup`` put into ``.uv``."""
    own = root / ".uv" / "bin" / "uv"
    found = shutil.which("uv") or (str(own) if own.is_file() else None)
    if found is None:
        pytest.skip("uv is needed: pip install uv")
    return found
