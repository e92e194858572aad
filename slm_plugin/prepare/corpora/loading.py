"""Data sets of the hub, and local files, opened by ``datasets`` without decoding recordings."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from slm_plugin.data.tables import open_local, opening, undecoded
from slm_plugin.errors import DataError, suggest


def open_rows(path: str, subset: str | None, split: str, revision: str | None) -> Any:
    """Open a set of rows by its name on the hub, its folder or its file.

    Raises:
        DataError: It cannot be loaded.
    """
    import datasets

    with opening(path):
        found = open_local(path)
        # the split may be any that datasets reads, such as train[:10%]
        rows = found if found is not None else datasets.load_dataset(path, subset, split=split, revision=revision)
        return undecoded(rows)


def require_columns(rows: Any, columns: list[str], path: str) -> None:
    """Refuse a set without a column.

    Raises:
        DataError: Names the missing column and the nearest that is there.
    """
    for column in columns:
        if column not in rows.column_names:
            raise DataError(f"{path} has no column {column!r}. {suggest(column, rows.column_names, 'Columns')}")


def digest(rows: Any, **named: Any) -> str:
    """Return a fingerprint of what was opened: its name, its size and its first and last row's texts."""
    ends = [rows[index] for index in (0, len(rows) - 1)] if len(rows) else []
    texts = [{key: value for key, value in row.items() if isinstance(value, str)} for row in ends]
    known = {**named, "n_rows": len(rows), "columns": rows.column_names, "ends": texts}
    return hashlib.sha256(json.dumps(known, sort_keys=True, ensure_ascii=False).encode()).hexdigest()[:12]
