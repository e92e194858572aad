"""The recordings of a finished shard: whether one was replaced since, and whether one that failed can be read now.

A fault of the item is final: it is of no known format, too short, or without text. A fault of the machine is not: a
disk that was not mounted, an error of the disk, too little memory. Items that were dropped for one are tried again by
the next run.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slm_plugin.prepare.corpora.listing import Listing
from slm_plugin.prepare.corpora.protocol import Item, SpokenItem
from slm_plugin.prepare.filters import MEMORY, UNREADABLE, DroppedError
from slm_plugin.prepare.job import Job
from slm_plugin.prepare.parts import Parts
from slm_plugin.weights.digest import file_digest

RETRIED = frozenset({MEMORY, UNREADABLE})
"""Reasons that are the machine's and not the item's."""


@dataclass(frozen=True)
class Seen:
    """A recording as it was when its units were made.

    Attributes:
        digest: Twelve hex digits over its content.
        state: Size in bytes, time of change in nanoseconds, and inode.
    """

    digest: str
    state: tuple[int, int, int]


def look_at(item: Item) -> Seen | None:
    """Read a recording that is a file; None for items of other kinds.

    Raises:
        DroppedError: The file cannot be read.
    """
    path = _path(item)
    if path is None:
        return None
    try:
        status = path.stat()
        return Seen(file_digest(path)[:12], (status.st_size, status.st_mtime_ns, status.st_ino))
    except OSError as error:
        if isinstance(error, FileNotFoundError) and _has_files(path.parent):
            # the folder is there and the file is not: the table is wrong
            return None
        raise DroppedError(UNREADABLE, f"{path} cannot be read ({error.strerror or error}).") from None


def machine_fault(error: BaseException) -> DroppedError | None:
    """Return the reason for an error of the machine; None for an error that is the item's."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return DroppedError(MEMORY, f"there was too little memory ({' '.join(str(error).split())[:120]}).")
    if isinstance(error, OSError) and error.errno is not None:
        return DroppedError(UNREADABLE, f"{error.filename or 'it'} cannot be read ({error.strerror}).")
    return None


def unsettled(job: Job, parts: Parts, shard: int) -> list[str]:
    """Return why a finished shard must be made again; empty if it need not."""
    about = job.about(shard)
    if about is None:
        return []
    retried = {row["name"] for row in about["dropped"] if row["reason"] in RETRIED}
    digests, states = about.get("recordings"), _read_states(job.mark(shard))
    if not isinstance(parts.corpus, Listing) or not isinstance(digests, list):
        return [f"{name} is tried again" for name in sorted(retried)]
    absent = {row["name"] for row in about["dropped"] if row["reason"] == "audio"}
    found = []
    for position, number in enumerate(job.items_of(shard)):
        item, digest = parts.corpus[number], digests[position]
        path = _path(item)
        is_there = path is None or os.access(path, os.R_OK)
        if item.name in retried:
            found += [f"{item.name} is tried again"] if is_there else []
        elif path is not None and digest is not None and _is_other(path, digest, states.get(position)):
            found.append(f"{item.name} has another recording")
        elif path is not None and digest is None and item.name in absent and is_there:
            found.append(f"{item.name} has a recording now")
    return found


def write_states(mark: Path, states: Sequence[tuple[int, int, int] | None]) -> None:
    """Remember by what recordings are known without being read; losing it costs time only."""
    path = _states_path(mark)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(states) + "\n", encoding="utf-8")


def _is_other(path: Path, digest: str, state: Any) -> bool:
    try:
        status = path.stat()
        if state == [status.st_size, status.st_mtime_ns, status.st_ino]:
            return False
        return file_digest(path)[:12] != digest
    except OSError:
        # what is away has not changed; its rows are there
        return False


def _has_files(folder: Path) -> bool:
    try:
        return any(folder.iterdir())
    except OSError:
        return False


def _path(item: Item) -> Path | None:
    return Path(item.audio) if isinstance(item, SpokenItem) and isinstance(item.audio, str) else None


def _states_path(mark: Path) -> Path:
    # beside the data set, which may be uploaded
    folder = mark.parent.parent
    return folder.parent / ".recordings" / folder.name / mark.name


def _read_states(mark: Path) -> dict[int, Any]:
    try:
        return dict(enumerate(json.loads(_states_path(mark).read_text(encoding="utf-8"))))
    except (OSError, ValueError, TypeError):
        return {}
