"""How a run came about: its steps, the command of each and the YAML that it ran with."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from slm_plugin.pipeline.plan import Pipeline, Step
from slm_plugin.report.content import StepLine
from slm_plugin.report.folder import RunFolder, configuration


def step_lines(run: RunFolder) -> list[StepLine]:
    """Return the steps in the order of the pipeline, then those that only the lineage knows."""
    steps = {step.name: step for step in run.pipeline.steps}
    names = [name for name in (*steps, *run.lineage) if name in run.lineage or run.file is not None]
    return [_line(run, name, steps.get(name)) for name in dict.fromkeys(names)]


def output_folders(run: RunFolder) -> dict[Path, int]:
    """Return where steps wrote their models and adapters to, with the position of the step."""
    found: dict[Path, int] = {}
    for position, name in enumerate(dict.fromkeys([*(step.name for step in run.pipeline.steps), *run.lineage])):
        step = next((step for step in run.pipeline.steps if step.name == name), None)
        written = list(run.lineage.get(name, {}).get("outputs", {}))
        config = configuration(run, step) if step is not None else None
        if isinstance(config, dict):
            written += [config[key] for key in ("output_dir", "export_dir") if isinstance(config.get(key), str)]
        for path in map(run.locate, written):
            if path is not None and path.is_dir():
                found.setdefault(path, position)
    return found


def command(step: Step, pipeline: Pipeline, file: Path | None) -> str:
    """Return the command line of a step, as one would type it."""
    variables = dict(step.environment)
    if step.processes > 1:
        variables |= {"FORCE_TORCHRUN": "1", "NPROC_PER_NODE": str(step.processes)}
    words = [f"{name}={shlex.quote(value)}" for name, value in variables.items()]
    if step.train is not None or step.export is not None:
        words += ["llamafactory-cli", step.kind, shlex.quote(step.train or step.export or "")]
    elif step.evaluate is not None:
        words += ["slm eval", shlex.quote(str(file)) if file is not None else "PIPELINE.yaml"]
        words += ["--step", shlex.quote(step.name)]
    else:
        words += [shlex.quote(word.replace("{output}", pipeline.output)) for word in step.command or []]
    return " ".join(words)


def versions(run: RunFolder) -> dict[str, str]:
    """Return the versions of the software that the last finished step ran with."""
    found: Mapping[str, Any] = {}
    for entry in run.lineage.values():
        found = entry.get("versions") or found
    return {str(name): str(version) for name, version in found.items()}


def _line(run: RunFolder, name: str, step: Step | None) -> StepLine:
    entry = run.lineage.get(name, {})
    config = configuration(run, step) if step is not None else entry.get("config")
    seed = entry.get("seed") or (config.get("seed") if isinstance(config, dict) else None)
    return StepLine(
        name=name,
        kind=step.kind if step is not None else str(entry.get("kind", "")),
        seconds=_number(entry.get("seconds")),
        cpu_seconds=_number(entry.get("cpu_seconds")),
        fingerprint=str(entry["fingerprint"]) if entry.get("fingerprint") else None,
        seed=seed if isinstance(seed, int) else None,
        command=command(step, run.pipeline, run.file) if step is not None else "",
        config=yaml.safe_dump(config, sort_keys=False, allow_unicode=True) if config else "",
    )


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) else None
