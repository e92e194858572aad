"""Which steps of a pipeline are finished, which can go on where they stopped, and why the others must run."""

from __future__ import annotations

import graphlib
from dataclasses import dataclass, field
from pathlib import Path

from slm_plugin import card
from slm_plugin.errors import PipelineError
from slm_plugin.pipeline import attempts, checkpoints, records
from slm_plugin.pipeline.digests import Digests
from slm_plugin.pipeline.fingerprints import Inputs, changes, step_inputs
from slm_plugin.pipeline.outputs import broken_seals, configured_folders, outputs_of
from slm_plugin.pipeline.plan import Pipeline, Step, host_config, needs

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
        adopts: Whether its training has ended without having been recorded.
    """

    inputs: Inputs
    record: records.StepRecord | None = None
    reasons: list[str] = field(default_factory=list)
    resumes: Path | None = None
    restores: bool = False
    adopts: bool = False

    @property
    def is_finished(self) -> bool:
        """Whether nothing needs to run."""
        return not self.reasons and (self.record is not None or self.adopts)


def look(pipeline: Pipeline, restart: bool = False, digests: Digests | None = None) -> dict[str, State]:
    """Return the state of each step.

    Args:
        pipeline: The pipeline.
        restart: Whether interrupted trainings begin at their first step.
        digests: Digests of files that are remembered.
    """
    digests = digests or Digests(Path(pipeline.output))
    output, needed = Path(pipeline.output), needs(pipeline)
    steps, written = {step.name: step for step in pipeline.steps}, written_by(pipeline)
    states: dict[str, State] = {}
    for name in graphlib.TopologicalSorter(dict(needed)).static_order():
        upstream = {need: states[need].inputs.fingerprint for need in needed[name]}
        inputs = step_inputs(steps[name], pipeline, upstream, digests, written)
        state = states[name] = State(inputs, records.read(output, name))
        again = [need for need in needed[name] if states[need].reasons]
        if state.record is None:
            _look_at_attempt(state, steps[name], output, bool(again) or restart)
            continue
        state.reasons = _reasons(state, steps[name], output, digests)
        if again:
            told = {f"step {need} has another result" for need in needed[name]}
            state.reasons = [reason for reason in state.reasons if reason not in told]
            state.reasons += [f"step {need} runs again" for need in again]
    return states


def written_by(pipeline: Pipeline) -> list[Path]:
    """Return what the steps of a pipeline write."""
    return [path for step in pipeline.steps for path in outputs_of(step, Path(pipeline.output))]


def refuse_own_folder(pipeline: Pipeline) -> None:
    """Refuse a step that writes the output folder as a whole: replacing its output would move the records away.

    Raises:
        PipelineError: Names the step.
    """
    output = Path(pipeline.output).resolve()
    for step in pipeline.steps:
        for path in outputs_of(step, Path(pipeline.output)):
            if output.is_relative_to(path.resolve()):
                text = f"step {step.name} writes {path}, which holds the records of the pipeline in {pipeline.output}"
                raise PipelineError(f"{text}; let it write a folder or file below that.")


def newer_versions(record: records.StepRecord | None) -> list[str]:
    """Return which packages have another version than a finished result was made with."""
    before = dict(record.lineage.get("versions", {})) if record is not None else {}
    now = card.versions()
    return [
        f"made with {name} {version}, now {now[name]}"
        for name, version in before.items()
        if name in now and now[name] != version
    ]


def _reasons(state: State, step: Step, output: Path, digests: Digests) -> list[str]:
    assert state.record is not None
    reasons: list[str] = []
    if state.record.fingerprint != state.inputs.fingerprint:
        reasons += changes(state.record.inputs, state.inputs.parts) or ["what it is made from changed"]
    missing = [path for path in outputs_of(step, output) if not path.exists()]
    seals = [(name, (size, digits)) for name, (size, digits) in state.record.lineage.get("weights", {}).items()]
    within = [seal for seal in seals if not any(Path(seal[0]).is_relative_to(path) for path in missing)]
    return [*reasons, *(f"{path} is missing" for path in missing), *broken_seals(within, digests)]


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
    elif step.train is not None and not anew and _has_ended(step, output):
        state.reasons, state.adopts = [], True
    elif step.train is not None and not anew and (host_config(step) or {}).get("stage") not in NOT_RESUMED:
        state.resumes = next(filter(None, map(checkpoints.last, configured_folders(step))), None)


def _has_ended(step: Step, output: Path) -> bool:
    """Tell whether the training of a step wrote everything before the run was killed or its record failed."""
    config = host_config(step) or {}
    # what comes after training is not seen in its folder
    if any(config.get(key) for key in ("do_eval", "do_predict", "eval_dataset", "val_size")):
        return False
    last = card.FILE_NAME if config.get("slm") else None
    folders = configured_folders(step)
    there = all(path.exists() for path in outputs_of(step, output))
    return bool(folders) and there and all(checkpoints.is_ended(folder, last) for folder in folders)
