"""Which steps of a pipeline are finished, which can go on where they stopped, and why the others must run."""

from __future__ import annotations

import graphlib
from dataclasses import dataclass, field
from pathlib import Path

from slm_plugin import card
from slm_plugin.pipeline import attempts, checkpoints, records
from slm_plugin.pipeline.fingerprints import Inputs, changes, step_inputs
from slm_plugin.pipeline.plan import OUTPUT_KEYS, Pipeline, Step, host_config, needs

UNFINISHED = "it has not been finished"
NOT_RESUMED = ("rm", "ppo")
"""Stages of LLaMA-Factory whose trainings cannot go on from a checkpoint."""


@dataclass
class State:
    """Where a step stands.

    Attributes:
        inputs: What decides its result.
        record: Its finished result; None if it has none.
        reasons: Why it must run; empty if it is finished.
        resumes: The checkpoint that it can go on from.
        restores: Whether its finished result was moved aside and can be put back.
    """

    inputs: Inputs
    record: records.StepRecord | None = None
    reasons: list[str] = field(default_factory=list)
    resumes: Path | None = None
    restores: bool = False


def look(pipeline: Pipeline, restart: bool = False) -> dict[str, State]:
    """Return the state of each step.

    Args:
        pipeline: The pipeline.
        restart: Whether interrupted trainings begin at their first step.
    """
    output, needed = Path(pipeline.output), needs(pipeline)
    steps = {step.name: step for step in pipeline.steps}
    states: dict[str, State] = {}
    for name in graphlib.TopologicalSorter(dict(needed)).static_order():
        upstream = {need: states[need].inputs.fingerprint for need in needed[name]}
        state = states[name] = State(step_inputs(steps[name], pipeline, upstream), records.read(output, name))
        again = [need for need in needed[name] if states[need].reasons]
        if state.record is None:
            _look_at_attempt(state, steps[name], output, bool(again) or restart)
            continue
        state.reasons = _reasons(state, steps[name], output)
        if again:
            told = {f"step {need} has another result" for need in needed[name]}
            state.reasons = [reason for reason in state.reasons if reason not in told]
            state.reasons += [f"step {need} runs again" for need in again]
    return states


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


def newer_versions(record: records.StepRecord | None) -> list[str]:
    """Return which packages have another version than a finished result was made with."""
    before = dict(record.lineage.get("versions", {})) if record is not None else {}
    now = card.versions()
    return [
        f"made with {name} {version}, now {now[name]}"
        for name, version in before.items()
        if name in now and now[name] != version
    ]


def _reasons(state: State, step: Step, output: Path) -> list[str]:
    assert state.record is not None
    reasons: list[str] = []
    if state.record.fingerprint != state.inputs.fingerprint:
        reasons += changes(state.record.inputs, state.inputs.parts) or ["what it is made from changed"]
    return reasons + [f"{path} is missing" for path in outputs_of(step, output) if not path.exists()]


def _look_at_attempt(state: State, step: Step, output: Path, anew: bool) -> None:
    """Find out how a step that is not finished goes on."""
    attempt = attempts.read(output, step.name)
    finished = None if anew else attempts.restorable(attempt, state.inputs.fingerprint)
    if finished is not None:
        state.record, state.restores = finished, True
        return
    state.reasons = [UNFINISHED]
    if attempt is None:
        return
    if attempt.fingerprint != state.inputs.fingerprint:
        state.reasons += [f"{change} since it was started" for change in changes(attempt.inputs, state.inputs.parts)]
    elif step.train is not None and not anew and (host_config(step) or {}).get("stage") not in NOT_RESUMED:
        state.resumes = next(filter(None, map(checkpoints.last, configured_folders(step))), None)
