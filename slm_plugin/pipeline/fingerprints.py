"""What a step depends on, as one short fingerprint; a change in any of it makes the step run again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from slm_plugin import card
from slm_plugin.pipeline.attempts import ASIDE
from slm_plugin.pipeline.plan import Pipeline, Step, host_config


@dataclass(frozen=True)
class Inputs:
    """Everything that decides a step's result.

    Attributes:
        fingerprint: Sixteen hex digits over all of it.
        parts: The same part by part, twelve digits each, to say later which one changed: ``definition``,
            ``environment``, ``versions``, ``skills``, ``engine``, ``step NAME`` for steps it needs and ``file PATH``.
    """

    fingerprint: str
    parts: Mapping[str, str]


def step_inputs(step: Step, pipeline: Pipeline, upstream: Mapping[str, str]) -> Inputs:
    """Return what decides a step's result.

    That is its definition, the host YAML it names with the data it reads, its ``inputs``, the
    versions of the software, and the fingerprints of the steps it needs. Evaluations also depend on
    the pipeline's skills.

    Args:
        step: The step.
        pipeline: The pipeline it is part of.
        upstream: Fingerprint by name of every step it needs.
    """
    known: dict[str, object] = {
        # what a row is called in tables decides no score
        "step": step.model_dump(exclude={"needs": True, "evaluate": {"label", "variants"}}),
        "environment": pipeline.environment,
        "upstream": dict(sorted(upstream.items())),
        "versions": {name: release(version) for name, version in card.versions().items()},
    }
    if step.evaluate is not None:
        known["skills"] = [skill.model_dump() for skill in pipeline.skills]
        if pipeline.engine != "auto":
            known["engine"] = pipeline.engine
    digest = hashlib.sha256(_text(known))
    parts = {
        "definition" if key == "step" else key: _digits(_text(value))
        for key, value in known.items()
        if key != "upstream"
    }
    parts |= {f"step {name}": digits for name, digits in upstream.items()}
    for file in _files_of(step, pipeline):
        digest.update(f"{file}\n".encode())
        if file.is_file():
            with file.open("rb") as content:
                found = hashlib.file_digest(content, "sha256")
            digest.update(found.digest())
            parts[f"file {file}"] = found.hexdigest()[:12]
    return Inputs(digest.hexdigest()[:16], parts)


def changes(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """Say which parts of a step's inputs differ from those it was run with."""
    found = []
    for name in sorted({*before, *now}):
        if before.get(name) == now.get(name):
            continue
        kind, _, what = name.partition(" ")
        verb = "is new" if name not in before else "is gone" if name not in now else "changed"
        if kind == "file":
            found.append(f"{what} {verb}")
        elif kind == "step":
            found.append(f"step {what} {'has another result' if verb == 'changed' else verb}")
        else:
            found.append(f"its {name} changed")
    return found


def release(version: str) -> str:
    """Return a version without its patch level, whose releases repair and change no results by intention."""
    return ".".join(version.partition("+")[0].split(".")[:2])


def _text(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, default=str).encode()


def _digits(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:12]


def _files_of(step: Step, pipeline: Pipeline) -> list[Path]:
    files = [Path(name) for name in step.inputs]
    if step.file is not None:
        files += [Path(step.file), *_data_of(step)]
    if step.evaluate is not None:
        options = [value for skill in pipeline.skills for value in skill.options.values()]
        files += [Path(value) for value in options if isinstance(value, str) and Path(value).exists()]
    return [file for path in files for file in _files_in(path)]


def _data_of(step: Step) -> list[Path]:
    """Return the data folder that a train YAML names; outputs of other steps come in as upstream."""
    folder = (host_config(step) or {}).get("dataset_dir")
    return [Path(folder)] if isinstance(folder, str) and Path(folder).is_dir() else []


def _files_in(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    # running a script writes bytecode beside it, which is no input
    found = (file for file in path.rglob("*") if file.is_file() and not _is_left_over(file))
    return sorted(found)


def _is_left_over(file: Path) -> bool:
    return any(part == "__pycache__" or ASIDE.fullmatch(part) for part in file.parts)
