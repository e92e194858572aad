"""Data sets by name: from the hub, or from local files and folders of the same form."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from slm_plugin.data import delimited
from slm_plugin.errors import DataError, suggest

logger = logging.getLogger(__name__)

FORMATS = {".parquet": "parquet", ".jsonl": "json", ".json": "json", ".csv": "csv"}
"""What a local file may be, by its suffix."""

SPLITS = ("test", "validation", "dev", "train")
"""Which split is read where none is asked for: the first of these that the set has."""

_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")


def is_hub_name(path: str) -> bool:
    """Tell whether a path that is not there can only be the name of a set on the hub, ``owner/name``."""
    return _HUB_NAME.fullmatch(path) is not None and Path(path).suffix not in FORMATS and not Path(path).exists()


def open_table(path: str, subset: str | None = None, split: str | None = None, limit: int | None = None) -> Any:
    """Open a set without decoding its recordings.

    Args:
        path: Name on the hub; or a local Parquet, JSON, JSON lines or CSV file; or a folder, in any form
            that ``datasets.load_dataset`` reads or that ``save_to_disk`` wrote.
        subset: Configuration of a set that has several.
        split: Which split; the first of :data:`SPLITS` that the set has unless given. A file has only one.
        limit: How many rows at most. A set on the hub is then read no further than that.

    Returns:
        A ``datasets.Dataset``; columns of recordings hold ``{"bytes", "path"}``.

    Raises:
        DataError: It cannot be loaded, or has no such split.
    """
    with opening(path):
        table = undecoded(_load(path, subset, split, limit))
    return table if limit is None else table.select(range(min(limit, len(table))))


@contextmanager
def opening(path: str) -> Iterator[None]:
    """Tell what keeps a set from being loaded in one line.

    Raises:
        DataError: In place of an error of ``datasets``.
    """
    import datasets

    try:
        yield
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        raise DataError(f"{path} cannot be loaded: {' '.join(str(error).split())[:300]}") from None


def open_local(path: str) -> Any | None:
    """Open a file, or a folder that ``save_to_disk`` wrote; None where the path is neither."""
    import datasets

    local = Path(path)
    if local.is_file():
        if local.suffix not in FORMATS:
            raise ValueError(f"files are {', '.join(FORMATS)}, not {local.suffix!r}.")
        form = FORMATS[local.suffix]
        other = _other_csv(local) if form == "csv" else None
        return datasets.load_dataset(form, data_files=path, split="train") if other is None else other
    return datasets.load_from_disk(path) if (local / "state.json").is_file() else None


def _other_csv(path: Path) -> Any | None:
    """Return the rows of a CSV file that is not UTF-8 with commas, as text; None for one that is."""
    import datasets

    file = delimited.read_text(path)
    rows, mark = delimited.rows(file)
    if file.encoding in ("utf-8", "utf-8-sig") and mark == ",":
        return None
    by = delimited.DELIMITERS.get(mark, repr(mark))
    logger.warning("%s: read as %s with fields separated by %s (guessed)", path, file.encoding, by)
    return datasets.Dataset.from_list(list(rows))


def undecoded(table: Any) -> Any:
    """Return a set, streamed or not, whose recordings stay encoded."""
    import datasets

    for name, feature in (table.features or {}).items():
        if isinstance(feature, datasets.Audio):
            # decoding through datasets needs FFmpeg's libraries; the bytes are enough
            table = table.cast_column(name, datasets.Audio(decode=False))
    return table


def _load(path: str, subset: str | None, split: str | None, limit: int | None) -> Any:
    import datasets

    local = Path(path)
    found = open_local(path)
    if found is not None:
        return found
    if (local / "dataset_dict.json").is_file():
        found = datasets.load_from_disk(path)
        return found[_chosen(path, split, list(found))]
    chosen = _chosen(path, split, datasets.get_dataset_split_names(path, subset))
    if limit is not None and not local.exists():
        stream = datasets.load_dataset(path, subset, split=chosen, streaming=True)
        return datasets.Dataset.from_list(list(undecoded(stream).take(limit)), features=undecoded(stream).features)
    return datasets.load_dataset(path, subset, split=chosen)


def _chosen(path: str, split: str | None, known: list[str]) -> str:
    if split is None:
        return next((name for name in SPLITS if name in known), known[0])
    if split not in known:
        raise DataError(f"{path} has no split {split!r}. {suggest(split, known, 'Splits')}")
    return split
