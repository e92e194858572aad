"""What the steps of a pipeline write, and whether finished weights are still what was written."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from slm_plugin.pipeline.attempts import WEIGHTS
from slm_plugin.pipeline.digests import Digests
from slm_plugin.pipeline.plan import OUTPUT_KEYS, Step, host_config

Seal = tuple[int, str]
"""Size in bytes and digest of a file of weights."""


def outputs_of(step: Step, output: Path) -> list[Path]:
    """Return the files and folders that must be there when a step has ended."""
    named = [Path(name.replace("{output}", str(output))) for name in step.outputs]
    named += configured_folders(step)
    if step.evaluate is not None:
        named.append(scores_path(output, step.evaluate.stage))
    return named


def configured_folders(step: Step) -> list[Path]:
    """Return the folder that a training or an export writes."""
    config = host_config(step)
    value = config.get(OUTPUT_KEYS[step.kind]) if config is not None else None
    return [Path(value)] if value else []


def scores_path(output: Path, stage: str) -> Path:
    """Return where an evaluation step leaves its scores."""
    return output / "scores" / f"{stage}.json"


def seal(outputs: Iterable[Path], digests: Digests) -> dict[str, Seal]:
    """Return size and digest of every file of weights in outputs, but for checkpoints, which may be deleted."""
    return {str(path): (path.stat().st_size, digests.file(path)) for output in outputs for path in _weights_in(output)}


def broken_seals(seals: Iterable[tuple[str, Seal]], digests: Digests) -> list[str]:
    """Return what is wrong with weights that were finished, in words; empty if nothing is."""
    found = []
    for name, (size, digest) in seals:
        path = Path(name)
        if not path.is_file():
            found.append(f"{name} is missing")
        elif path.stat().st_size != size:
            found.append(f"{name} has {path.stat().st_size} bytes, not the {size} that were written")
        elif digests.file(path) != digest:
            found.append(f"{name} is not what was written")
    return found


def _weights_in(output: Path) -> list[Path]:
    files = [output] if output.is_file() else sorted(output.rglob("*"))
    return [path for path in files if path.suffix in WEIGHTS and path.is_file() and not _is_spare(path, output)]


def _is_spare(path: Path, output: Path) -> bool:
    inside = path.relative_to(output).parts[:-1] if path != output else ()
    return any(part.startswith((".", "checkpoint-")) for part in inside)
