"""``dataset_info.json``: the data sets of a folder by name, which several processes may add to at the same time."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from slm_plugin.errors import DataError
from slm_plugin.weights.durable import locked, write_text

FILE_NAME = "dataset_info.json"

Check = Callable[[Mapping[str, Any], Mapping[str, Any], Path], None]
"""Refuses entries; it is given those that are there, the new ones and the file."""


def read(path: Path) -> dict[str, Any]:
    """Return the entries of a registry, or of another JSON object of data sets by name; none if there is no file.

    Raises:
        DataError: It is damaged.
    """
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(f"{path} is not valid JSON: {error}.") from None
    if not isinstance(content, dict):
        raise DataError(f"{path} must hold a JSON object of data sets by name.")
    return content


def add(folder: Path, entries: Mapping[str, Any], check: Check = lambda *_: None, file_name: str = FILE_NAME) -> None:
    """Add entries to a registry; the others stay, also those that another process adds at the same time.

    Args:
        folder: Where the file is.
        entries: New entries by name.
        check: Refuses entries.
        file_name: Name of the file.

    Raises:
        DataError: It is damaged or cannot be written, or ``check`` refused.
    """
    path = folder / file_name
    try:
        with locked(folder):
            known = read(path)
            check(known, entries, path)
            write_text(path, json.dumps({**known, **entries}, indent=2, ensure_ascii=False) + "\n")
    except OSError as error:
        raise DataError(f"{path} cannot be written ({error.strerror}).") from error
