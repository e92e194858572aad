"""The record of each finished step, kept in ``<output>/.steps``; a step without one is not finished."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from slm_plugin.weights import durable

FOLDER = ".steps"


@dataclass(frozen=True)
class StepRecord:
    """A finished step.

    Attributes:
        name: Name of the step.
        fingerprint: What it was made from.
        seconds: How long it took.
        cpu_seconds: Processor time of all its processes; None where it was not measured.
        inputs: What it was made from, part by part.
        lineage: What a reader wants to know of it: kind, configuration, seed, versions, outputs, times.
    """

    name: str
    fingerprint: str
    seconds: float
    cpu_seconds: float | None = None
    inputs: Mapping[str, str] = field(default_factory=dict)
    lineage: Mapping[str, Any] = field(default_factory=dict)


def read(output: Path, name: str) -> StepRecord | None:
    """Return the record of a step; None where it has none or it is damaged."""
    try:
        return StepRecord(**json.loads((output / FOLDER / f"{name}.json").read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def write(output: Path, record: StepRecord) -> None:
    """Record a step as finished."""
    write_json(output / FOLDER / f"{record.name}.json", asdict(record))


def forget(output: Path, name: str) -> None:
    """Remove the record of a step that is about to run."""
    (output / FOLDER / f"{name}.json").unlink(missing_ok=True)


def write_json(path: Path, content: object) -> None:
    """Write JSON to a temporary name and move it into place."""
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def write_text(path: Path, content: str) -> None:
    """Write text to a temporary name and move it into place."""
    path.parent.mkdir(parents=True, exist_ok=True)
    durable.write_text(path, content)


def read_json(path: Path) -> Mapping[str, object] | None:
    """Return a JSON object; None where there is none."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None
