"""What a step depends on, as one short fingerprint; a change in any of it makes the step run again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

from omegaconf import OmegaConf

from slm_plugin import card
from slm_plugin.pipeline.plan import Pipeline, Step


def step_fingerprint(step: Step, pipeline: Pipeline, upstream: Mapping[str, str]) -> str:
    """Return sixteen hex digits over everything that decides a step's result.

    That is its definition, the host YAML it names with the data it reads, its ``inputs``, the
    versions of the software, and the fingerprints of the steps it needs. Evaluations also depend on
    the pipeline's skills.

    Args:
        step: The step.
        pipeline: The pipeline it is part of.
        upstream: Fingerprint by name of every step it needs.
    """
    digest = hashlib.sha256()
    parts: dict[str, object] = {
        "step": step.model_dump(exclude={"needs"}),
        "environment": pipeline.environment,
        "upstream": dict(sorted(upstream.items())),
        "versions": card.versions(),
    }
    if step.evaluate is not None:
        parts["skills"] = [skill.model_dump() for skill in pipeline.skills]
    digest.update(json.dumps(parts, sort_keys=True, default=str).encode())
    for path in _files_of(step, pipeline):
        _add(digest, path)
    return digest.hexdigest()[:16]


def _files_of(step: Step, pipeline: Pipeline) -> list[Path]:
    files = [Path(name) for name in step.inputs]
    for name in (step.train, step.export):
        if name is not None:
            files += [Path(name), *_data_of(Path(name))]
    if step.evaluate is not None:
        options = [value for skill in pipeline.skills for value in skill.options.values()]
        files += [Path(value) for value in options if isinstance(value, str) and Path(value).exists()]
    return files


def _data_of(host_yaml: Path) -> list[Path]:
    """Return the data folder that a train YAML names; outputs of other steps come in as upstream."""
    folder = OmegaConf.select(OmegaConf.load(host_yaml), "dataset_dir")
    return [Path(folder)] if isinstance(folder, str) and Path(folder).is_dir() else []


def _add(digest: hashlib._Hash, path: Path) -> None:
    # running a script writes bytecode beside it, which is no input
    found = (file for file in path.rglob("*") if file.is_file() and "__pycache__" not in file.parts)
    files = sorted(found) if path.is_dir() else [path]
    for file in files:
        digest.update(f"{file}\n".encode())
        if file.is_file():
            with file.open("rb") as content:
                digest.update(hashlib.file_digest(content, "sha256").digest())
