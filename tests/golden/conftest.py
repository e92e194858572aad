"""What the tests of golden values share."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from golden.make import GOLDEN


@pytest.fixture(scope="session")
def stored() -> dict[str, dict[str, Any]]:
    """The committed entries by algorithm."""
    return {row["algorithm"]: row for row in json.loads(GOLDEN.read_text(encoding="utf-8"))}


@pytest.fixture
def golden(stored) -> Callable[[str], tuple[dict[str, Any], Any]]:
    """Give input and value of an algorithm."""
    return lambda name: (dict(stored[name]["input"]), stored[name]["value"])
