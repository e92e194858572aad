"""What is written once all files are there: the report, the card, and the entries of ``dataset_info.json``."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from slm_plugin.data import registry
from slm_plugin.errors import DataError
from slm_plugin.prepare import data_card, plots
from slm_plugin.prepare.job import Job
from slm_plugin.prepare.parts import Parts
from slm_plugin.prepare.rows import WORKING
from slm_plugin.prepare.statistics import Statistics, count
from slm_plugin.weights.durable import write_text

REPORT, CARD, PAGE = "report.jsonl", "card.json", "README.md"
STAGES = {"speech": ("asr", "tts"), "chats": ("sqa",)}
"""Stages that rows of each kind are for."""


def finish(job: Job, parts: Parts) -> Statistics:
    """Write what describes the rows; the same bytes again for the same rows.

    Raises:
        DataError: A file is missing, no item could be kept, or another data set has the name.
    """
    folder = job.options.folder
    found = count(job, parts.codec)
    report = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in found.dropped)
    write_text(folder / REPORT, report)
    if not found.n_rows:
        reasons = ", ".join(f"{reason} {n}" for reason, n in found.reasons.items())
        raise DataError(f"none of {job.n_items} items could be kept ({reasons}); {folder / REPORT} says why.")
    entries = entries_of(job)
    card = data_card.content(job, parts, found)
    plots.draw_all(found, folder / data_card.IMAGES)
    write_text(folder / CARD, json.dumps(card, indent=2, ensure_ascii=False) + "\n")
    write_text(folder / PAGE, data_card.page(job, card, entries, parts.corpus))
    registry.add(Path(job.options.output), entries, _refuse_others)
    shutil.rmtree(folder / WORKING, ignore_errors=True)
    return found


def entries_of(job: Job) -> dict[str, Any]:
    """Return the entries of ``dataset_info.json``.

    They name the folder and not its files: of a folder the host takes the files in sorted order, of a list of
    files in whatever order the disk has them.
    """
    where = {"script_url": job.options.name, "split": job.options.split}
    return {f"{job.options.name}_{stage}": {**where, "formatting": f"slm_{stage}"} for stage in STAGES[job.kind]}


def _refuse_others(known: Mapping[str, Any], entries: Mapping[str, Any], path: Path) -> None:
    for name, entry in entries.items():
        if name in known and known[name].get("script_url") != entry["script_url"]:
            raise DataError(f"{path} already has another data set {name!r}; choose another name.")
