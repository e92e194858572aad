"""The benchmarks' modules, importable by name."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture(autouse=True)
def benchmarks(monkeypatch: pytest.MonkeyPatch, root: Path) -> Path:
    """Run in the repository, as the scripts expect, with their folder on the path."""
    monkeypatch.chdir(root)
    monkeypatch.setattr(sys, "path", [str(FOLDER), *sys.path])
    return FOLDER
