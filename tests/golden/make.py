"""Calculates the golden values of the algorithms with other implementations than ours.

    python tests/golden/make.py        # writes golden.json beside this file

Each ``by_*`` module is named after what calculates: mergekit, PEFT, torch, SciPy and its like, a search through all
ways, or the formula of the paper in plain numbers. ``test_golden.py`` runs our functions on the same inputs.
"""

from __future__ import annotations

import importlib
import json
import re
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
GOLDEN = HERE / "golden.json"
MAKERS = ("by_mergekit", "by_peft", "by_torch", "by_scipy", "by_search", "by_formula")


def rows(maker: str) -> list[dict[str, Any]]:
    """Return the entries of a module with their values, calculated now."""
    return [entry.row() for entry in importlib.import_module(f"golden.{maker}").ENTRIES]


def written(found: list[dict[str, Any]]) -> str:
    """Return the text of ``golden.json``: lists of numbers on one line each."""
    text = json.dumps(found, indent=1, ensure_ascii=False)
    return re.sub(r"\[[^][{}]*\]", lambda match: " ".join(match[0].split()), text) + "\n"


if __name__ == "__main__":
    sys.path.insert(0, str(HERE.parent))
    GOLDEN.write_text(written([row for maker in MAKERS for row in rows(maker)]), encoding="utf-8")
