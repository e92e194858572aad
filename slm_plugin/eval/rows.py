"""Rows of evaluation files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from slm_plugin.errors import DataError


def read_rows(path: str | Path, limit: int | None = None) -> list[dict[str, Any]]:
    """Read a file of JSON lines.

    Args:
        path: The file.
        limit: How many rows to read at most; None for all.

    Raises:
        DataError: The file is missing or empty, or a line is not a JSON object.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"there is no evaluation file {path}.")
    rows: list[dict[str, Any]] = []
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            if len(rows) == limit:
                break
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except json.JSONDecodeError as error:
                raise DataError(f"{path}, line {number}: not JSON ({error}).") from None
            if not isinstance(row, dict):
                raise DataError(f"{path}, line {number}: must be a JSON object, got {type(row).__name__}.")
            rows.append(row)
    if not rows:
        raise DataError(f"the evaluation file {path} has no rows.")
    return rows
