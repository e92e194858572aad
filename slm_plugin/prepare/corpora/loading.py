"""Data sets of the hub, and local files, opened by ``datasets`` without decoding recordings."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from slm_plugin.data.tables import open_local, opening, undecoded
from slm_plugin.errors import DataError, suggest
from slm_plugin.pipeline.digests import Digests


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


def digest(rows: Any, path: str, **named: Any) -> str:
    """Return a fingerprint of what was opened.

    It covers the content of a local file or folder, or the texts of all rows of a set on the hub; recordings of the
    hub are known by the revision alone.

    Args:
        rows: The rows.
        path: Name on the hub, folder or file.
        named: Further options that decide which items there are.
    """
    local = Path(path)
    content = Digests().any(local) if local.exists() else _texts_digest(rows)
    known = {**named, "path": path, "n_rows": len(rows), "columns": rows.column_names, "content": content}
    return hashlib.sha256(json.dumps(known, sort_keys=True, ensure_ascii=False).encode()).hexdigest()[:12]


def _texts_digest(rows: Any) -> str:
    found = hashlib.blake2b(digest_size=16)
    columns = [name for name, feature in (rows.features or {}).items() if getattr(feature, "dtype", "") == "string"]
    if columns:
        for batch in rows.select_columns(columns).with_format(None).iter(batch_size=1000):
            found.update(json.dumps(batch, ensure_ascii=False).encode())
    return found.hexdigest()
