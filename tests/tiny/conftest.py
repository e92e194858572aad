"""Makes the world of ``examples/tiny`` importable, as its own scripts see it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

TINY = Path(__file__).resolve().parents[2] / "examples" / "tiny"
sys.path.insert(0, str(TINY))


@pytest.fixture(scope="session")
def tiny() -> Path:
    """The example's folder."""
    return TINY
