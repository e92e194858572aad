"""Scores skills while the host trains: curves and samples to its loggers, a stop where a guarded skill is lost."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from accelerate.utils import gather_object
from transformers import TrainerCallback

from slm_plugin.errors import PipelineError, SlmError
from slm_plugin.eval.generator import TransformersGenerator
from slm_plugin.eval.probing import ProbePlan, Watched
from slm_plugin.host import runtime
from slm_plugin.host.sample_tables import log_samples, sounding
from slm_plugin.pipeline.results import write_scores
from slm_plugin.records import Score
from slm_plugin.speech.codecs import load_codec
from slm_plugin.speech.protocol import Codec
from slm_plugin.training.undisturbed import undisturbed

FOLDER = "probes"
"""Below the output folder: ``step-000100.json`` is what was scored after step 100, generations included."""

STOPPED = "stopped_by_guard"
"""Key of ``slm.json`` that says after which step which skill had fallen."""


class ProbeCallback(TrainerCallback):
    """Scores the skills of ``slm.probes`` every so many steps.

    The processes deal the skills out among themselves and exchange scores, so that all of them take the same
    decision; an error of one is an error of all. Nothing that training depends on is changed.

    Args:
        trainer: The host's trainer.
        plan: What to score.
        facts: Further content of ``slm.json``, added to where a guard stops training.
    """

    def __init__(self, trainer: Any, plan: ProbePlan, facts: dict[str, Any]) -> None:
        self.trainer, self.plan, self.facts = trainer, plan, facts
        self.codec: Codec | None = _codec(plan)

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Score the model that training starts from, unless that was done before it was stopped."""
        if state.global_step == 0 and state.is_world_process_zero:
            for old in (Path(args.output_dir) / FOLDER).glob("step-*.json"):
                old.unlink()
        due = self.plan.options.at_start if state.global_step == 0 else self._is_due(state)
        if due and not _is_scored(state.log_history, state.global_step, self.plan.watched):
            self._look(args, state, control)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Score the model where it is time to."""
        if self._is_due(state):
            self._look(args, state, control)

    def _is_due(self, state: Any) -> bool:
        return state.global_step % self.plan.options.every_steps == 0 or state.global_step == state.max_steps

    def _look(self, args: Any, state: Any, control: Any) -> None:
        model = self.trainer.accelerator.unwrap_model(self.trainer.model)
        with undisturbed(model):
            generator = TransformersGenerator(model, self.trainer.processing_class, batch=self.plan.options.batch_size)
            scores = self._scores(generator)
            samples = sounding(scores, self.plan.options.samples, self.codec)
        fallen = [
            watched
            for watched in self.plan.watched
            if watched.skill in scores and watched.has_fallen(scores[watched.skill].value, state.log_history)
        ]
        keys = {watched.skill: watched.key for watched in self.plan.watched}
        wanted = control.should_log
        self.trainer.log({keys[skill]: score.value for skill, score in scores.items()})
        # logging takes back the wish to log, and the loss of this step is yet to come
        control.should_log = wanted
        if state.is_world_process_zero:
            write_scores(Path(args.output_dir) / FOLDER / f"step-{state.global_step:06d}.json", scores)
            log_samples(self.trainer.callback_handler.callbacks, samples, state.global_step)
        for watched in fallen:
            self._stop(watched, scores[watched.skill].value, state.global_step, control)

    def _scores(self, generator: TransformersGenerator) -> dict[str, Score]:
        """Return the scores of all skills, in order, whoever has measured them."""
        accelerator = self.trainer.accelerator
        mine = self.plan.watched[accelerator.process_index :: accelerator.num_processes]
        found: dict[str, Any] = {}
        failure: Exception | None = None
        try:
            for watched in mine:
                if generator.vocabulary is not None or not watched.probe.needs_units:
                    found[watched.skill] = dataclasses.asdict(watched.probe.score(watched.skill, generator))
        except Exception as error:
            # the others wait for our scores: they must learn of it before it is raised
            failure = error
        shared = gather_object([(found, None if failure is None else f"{type(failure).__name__}: {failure}")])
        if failure is not None:
            if isinstance(failure, SlmError):
                raise failure
            raise PipelineError(f"a probe failed during training: {type(failure).__name__}: {failure}") from failure
        for number, (_, message) in enumerate(shared):
            if message is not None:
                raise PipelineError(f"a probe failed on process {number}: {message}")
        everything = {skill: score for scores, _ in shared for skill, score in scores.items()}
        return {
            watched.skill: Score(**everything[watched.skill])
            for watched in self.plan.watched
            if watched.skill in everything
        }

    def _stop(self, watched: Watched, value: float, step: int, control: Any) -> None:
        control.should_training_stop = True
        what = {"step": step, "skill": watched.skill, "value": value, "floor": watched.floor}
        self.facts.setdefault(STOPPED, []).append(what)
        runtime.say(
            f"probes: {watched.skill} has fallen to {value:.3f}, floor {watched.floor}; training stops at step {step}."
        )


def _is_scored(history: Sequence[Mapping[str, Any]], step: int, watched: Sequence[Watched]) -> bool:
    keys = {skill.key for skill in watched}
    return any(line.get("step") == step and keys & set(line) for line in history)


def _codec(plan: ProbePlan) -> Codec | None:
    active = runtime.active()
    units = active.config.block.units if active is not None else None
    name = plan.options.codec or (units.codec if units is not None else None)
    return load_codec(name, runtime.registry()) if name is not None and plan.options.samples else None
