"""One data set to be made: what goes into it, in which files, and what is there already."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slm_plugin.errors import DataError
from slm_plugin.prepare.filters import Drop
from slm_plugin.prepare.options import ENGINE_KEYS, PrepareOptions
from slm_plugin.prepare.parts import Parts
from slm_plugin.prepare.rows import MARKS, about_shard
from slm_plugin.weights.durable import write_text

PLAN = "plan.json"


@dataclass(frozen=True)
class Job:
    """What every process that works on a data set must agree on; picklable.

    Attributes:
        options: The keys.
        fingerprints: What codec, corpus, aligner and voice answer for themselves.
        kind: ``speech`` or ``chats``.
        n_items: Items of the corpus.
    """

    options: PrepareOptions
    fingerprints: dict[str, str]
    kind: str
    n_items: int

    @property
    def n_shards(self) -> int:
        """How many files there will be."""
        return -(-self.n_items // self.options.shard_items)

    @property
    def digest(self) -> str:
        """Twelve hex digits over everything that decides the bytes."""
        return hashlib.sha256(json.dumps(self.plan(), sort_keys=True).encode()).hexdigest()[:12]

    def plan(self) -> dict[str, Any]:
        """Return what ``plan.json`` holds."""
        options = self.options.model_dump(mode="json", exclude=set(ENGINE_KEYS))
        if self.options.drop == Drop():
            # a data set that was begun before there were filters goes on
            del options["drop"]
        return {
            "options": options,
            "fingerprints": self.fingerprints,
            "kind": self.kind,
            "n_items": self.n_items,
        }

    def path(self, shard: int) -> Path:
        """Return the file of a shard."""
        return self.options.folder / self.options.split / f"part-{shard:05d}.parquet"

    def mark(self, shard: int) -> Path:
        """Return the file that says that a shard is finished."""
        return self.options.folder / MARKS / f"{shard:05d}.json"

    def items_of(self, shard: int) -> range:
        """Return the numbers of a shard's items."""
        size = self.options.shard_items
        return range(shard * size, min(self.n_items, (shard + 1) * size))

    def finished(self, shard: int) -> bool:
        """Say whether a shard's file is there, whole, and of this plan."""
        return self.about(shard) is not None

    def about(self, shard: int) -> dict[str, Any] | None:
        """Return what a finished shard was made from; None where it is not finished."""
        found = about_shard(self.path(shard), self.mark(shard))
        return found if found is not None and found.get("plan") == self.digest else None


def make_job(options: PrepareOptions, parts: Parts) -> Job:
    """Return the job of a set of parts."""
    return Job(options, parts.fingerprints(), parts.corpus.kind, len(parts.corpus))


def start(job: Job) -> None:
    """Write the plan, or compare with the one that is there.

    Raises:
        DataError: The folder holds something else, or was begun with other keys.
    """
    folder = job.options.folder
    path = folder / PLAN
    # through JSON, so that both sides have its types
    plan = json.loads(json.dumps(job.plan()))
    if path.is_file():
        try:
            old = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise DataError(f"{path} is not valid JSON: {error}.") from None
        differences = _differences(old, plan)
        if differences:
            raise DataError(
                f"{folder} was begun with {'; '.join(differences)}. Take the same keys again to go on,"
                " or another name to begin anew."
            )
        return
    visible = [entry for entry in folder.glob("[!.]*") if entry.name != PLAN] if folder.exists() else []
    # another process of the same run may have begun since
    if visible and not path.is_file():
        raise DataError(f"{folder} holds something that `slm prepare` did not make; choose another name or output.")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"{folder} cannot be made ({error.strerror}).") from None
    write_text(path, json.dumps(plan, indent=2, ensure_ascii=False) + "\n")


def _differences(old: Any, new: Any, where: str = "") -> list[str]:
    if isinstance(old, dict) and isinstance(new, dict):
        keys = [*old, *(key for key in new if key not in old)]
        return [
            text
            for key in keys
            for text in _differences(old.get(key), new.get(key), f"{where}.{key}" if where else key)
        ]
    return [] if old == new else [f"{where.removeprefix('options.')} {_short(old)}, not {_short(new)}"]


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "..."
