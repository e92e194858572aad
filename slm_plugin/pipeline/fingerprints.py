"""What a step depends on, as one short fingerprint; a change in any of it makes the step run again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from slm_plugin import card
from slm_plugin.pipeline.digests import Digests
from slm_plugin.pipeline.plan import Pipeline, Step
from slm_plugin.pipeline.sources import Sources, sources_of


@dataclass(frozen=True)
class Inputs:
    """Everything that decides a step's result.

    Attributes:
        fingerprint: Sixteen hex digits over all of it.
        parts: The same part by part, twelve digits each, to say later which one changed: ``definition``,
            ``environment``, ``versions``, ``skills``, ``engine``, ``step NAME`` for steps it needs, ``file PATH``,
            ``folder PATH`` and ``data set NAME``.
    """

    fingerprint: str
    parts: Mapping[str, str]


def step_inputs(
    step: Step,
    pipeline: Pipeline,
    upstream: Mapping[str, str],
    digests: Digests | None = None,
    written: Collection[Path] = (),
) -> Inputs:
    """Return what decides a step's result.

    That is its definition, the YAML that it names with the data and models that it reads, its ``inputs`` and scripts,
    the versions of the software, and the fingerprints of the steps that it needs. Evaluations also depend on the
    pipeline's skills.

    Args:
        step: The step.
        pipeline: The pipeline it is part of.
        upstream: Fingerprint by name of every step it needs.
        digests: Digests of files that are remembered.
        written: What the steps of the pipeline write, which is no input: it is known by the steps' own fingerprints.
    """
    digests = digests or Digests()
    known: dict[str, object] = {
        # what a row is called in tables decides no score
        "definition": step.model_dump(exclude={"needs": True, "evaluate": {"label", "variants"}}),
        "environment": pipeline.environment,
        "versions": {name: release(version) for name, version in card.versions().items()},
    }
    if step.evaluate is not None:
        known["skills"] = [skill.model_dump() for skill in pipeline.skills]
        if pipeline.engine != "auto":
            known["engine"] = pipeline.engine
    parts = {name: _digits(_text(value)) for name, value in known.items()}
    parts |= {f"step {name}": digits for name, digits in upstream.items()}
    parts |= _digested(sources_of(step, pipeline, written), digests)
    return Inputs(_digits(_text(parts), 16), parts)


def changes(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """Say which parts of a step's inputs differ from those it was run with."""
    found = []
    for name in sorted({*before, *now}):
        if before.get(name) == now.get(name):
            continue
        kind, _, what = name.partition(" ")
        verb = "is new" if name not in before else "is gone" if name not in now else "changed"
        if kind in ("file", "folder"):
            found.append(f"{what} {verb}")
        elif kind == "data":
            found.append(f"the {name} {verb}")
        elif kind == "step":
            found.append(f"step {what} {'has another result' if verb == 'changed' else verb}")
        else:
            found.append(f"its {name} changed")
    return found


def release(version: str) -> str:
    """Return a version without its patch level, whose releases repair and change no results by intention."""
    return ".".join(version.partition("+")[0].split(".")[:2])


def _digested(sources: Sources, digests: Digests) -> dict[str, str]:
    found = {f"file {path}": digests.file(path) for path in sources.files}
    found |= {f"folder {path}": digests.any(path) for path in sources.folders}
    for name, (entry, paths) in sources.data_sets.items():
        found[f"data set {name}"] = _digits(_text([entry, [digests.any(path) for path in paths]]))
    return found


def _text(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, default=str).encode()


def _digits(content: bytes, n: int = 12) -> str:
    return hashlib.blake2b(content).hexdigest()[:n]
