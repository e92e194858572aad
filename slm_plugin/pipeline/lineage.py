"""``lineage.json``: how everything in a pipeline's output folder came about."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import slm_plugin
from slm_plugin import card
from slm_plugin.pipeline import records
from slm_plugin.pipeline.digests import Digests
from slm_plugin.pipeline.outputs import seal
from slm_plugin.pipeline.plan import Pipeline, Step, host_config

FILE_NAME = "lineage.json"


def describe(
    step: Step, outputs: Sequence[Path], started: datetime, digests: Digests, overrides: Sequence[str] = ()
) -> dict[str, Any]:
    """Return what a finished step is recorded with.

    Args:
        step: The step.
        outputs: Files and folders that it wrote.
        started: When it was started.
        digests: Digests of files that are remembered.
        overrides: ``key=value`` arguments of the run.

    Returns:
        ``kind``, ``definition``, ``config`` (the host YAML as it was run), ``overrides``, ``seed``, ``versions``,
        ``code`` (twelve digits over this package's files), ``outputs`` (twelve digits by path), ``weights`` (size and
        digits of each file of weights), ``started`` and ``ended``.
    """
    config = host_config(step)
    return {
        "kind": step.kind,
        "definition": step.model_dump(exclude_defaults=True),
        "config": config,
        "overrides": list(overrides),
        "seed": config.get("seed") if config is not None else None,
        "versions": card.versions(),
        "code": code_digits(),
        "outputs": {str(path): digests.any(path) for path in outputs},
        "weights": seal(outputs, digests),
        "started": started.isoformat(timespec="milliseconds"),
        "ended": datetime.now(UTC).isoformat(timespec="milliseconds"),
    }


def write(pipeline: Pipeline) -> None:
    """Write ``lineage.json`` from the records of all finished steps."""
    output = Path(pipeline.output)
    found: dict[str, Any] = {}
    for step in pipeline.steps:
        record = records.read(output, step.name)
        if record is not None:
            measured = {"seconds": record.seconds, "cpu_seconds": record.cpu_seconds}
            made_from = {"fingerprint": record.fingerprint, "inputs": dict(record.inputs)}
            found[step.name] = {**record.lineage, **made_from, **measured}
    records.write_json(output / FILE_NAME, found)


def code_digits() -> str:
    """Return twelve hex digits over the sources of this package."""
    digest = hashlib.sha256()
    folder = Path(slm_plugin.__file__).parent
    for path in sorted(folder.rglob("*.py")):
        digest.update(f"{path.relative_to(folder)}\n".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]
