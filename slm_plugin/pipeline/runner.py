"""Runs the steps of a pipeline in order of need, several at a time, and skips what is finished."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import yaml

from slm_plugin.errors import PipelineError
from slm_plugin.pipeline import attempts, checkpoints, lineage, records
from slm_plugin.pipeline.digests import Digests
from slm_plugin.pipeline.fingerprints import step_inputs
from slm_plugin.pipeline.lock import locked, mark
from slm_plugin.pipeline.outputs import configured_folders, outputs_of
from slm_plugin.pipeline.outputs import scores_path as scores_path
from slm_plugin.pipeline.plan import Pipeline, Step, host_config, needs
from slm_plugin.pipeline.processes import Child, CommandChild, WarmHost
from slm_plugin.pipeline.progress import Progress
from slm_plugin.pipeline.states import State, look, newer_versions, refuse_own_folder, written_by

LOG_TAIL_LINES = 25


@dataclass(frozen=True)
class Outcome:
    """What became of a step.

    Attributes:
        name: Name of the step.
        seconds: How long it took, now or when it was run.
        skipped: Whether it was finished already.
    """

    name: str
    seconds: float
    skipped: bool


@dataclass(frozen=True)
class Intention:
    """What a run would do with a step.

    Attributes:
        name: Name of the step.
        reasons: Why it runs; empty if it is finished.
        notes: What a user may want to know before: what it goes on from, and what it replaces.
    """

    name: str
    reasons: tuple[str, ...]
    notes: tuple[str, ...] = ()


def intentions(pipeline: Pipeline, restart: bool = False) -> list[Intention]:
    """Return what a run would do with every step, and why, in the order of the file."""
    states = look(pipeline, restart)
    return [Intention(step.name, *_described(step, states[step.name], pipeline)) for step in pipeline.steps]


def _described(step: Step, state: State, pipeline: Pipeline) -> tuple[tuple[str, ...], tuple[str, ...]]:
    if not state.reasons:
        notes = ["its result was moved aside and is put back"] if state.restores else []
        notes += ["its training had ended, but was not recorded"] if state.adopts else []
        return (), (*notes, *newer_versions(state.record))
    if state.resumes is not None:
        return tuple(state.reasons), (f"goes on from {state.resumes}",)
    there = [path for path in outputs_of(step, Path(pipeline.output)) if path.exists()]
    return tuple(state.reasons), tuple(f"moves {path} aside ({attempts.size_text(path)})" for path in there)


def run(pipeline: Pipeline, path: Path, progress: Progress, restart: bool = False) -> list[Outcome]:
    """Run every step that is not finished.

    Args:
        pipeline: The parsed pipeline.
        path: Its file, which evaluations read again.
        progress: Where to report.
        restart: Begin interrupted trainings at their first step, and delete outputs that are replaced.

    Returns:
        An outcome per step, in the order of the file.

    Raises:
        PipelineError: A step failed, while steps that do not need it were allowed to end; or another run is at work
            in the output folder.
        KeyboardInterrupt: The user stopped it; all children have ended.
    """
    return _Run(pipeline, path, progress, restart).run()


class _Run:
    def __init__(self, pipeline: Pipeline, path: Path, progress: Progress, restart: bool = False) -> None:
        self.pipeline, self.path, self.progress, self.restart = pipeline, path, progress, restart
        self.output = Path(pipeline.output)
        self.steps = {step.name: step for step in pipeline.steps}
        self.needs = needs(pipeline)
        self.states: dict[str, State] = {}
        self.digests = Digests(self.output)
        self.outcomes: dict[str, Outcome] = {}
        self.children: dict[str, Child] = {}
        self.lock = threading.Lock()
        self.stopping = False
        self.inherited: tuple[int, ...] = ()
        self.warm: WarmHost | None = None

    def run(self) -> list[Outcome]:
        refuse_own_folder(self.pipeline)
        try:
            (self.output / "logs").mkdir(parents=True, exist_ok=True)
            with locked(self.output, self.progress.tell) as lock:
                self.inherited = (lock,)
                return self._run()
        except OSError as error:
            where = error.filename or self.output
            raise PipelineError(
                f"{where} cannot be written ({error.strerror or error}); what is finished stays."
            ) from None

    def _run(self) -> list[Outcome]:
        self._plan()
        self.digests.save()
        # a run that was killed between a step's record and this file left the step out of it
        lineage.write(self.pipeline)
        todo = [name for name in self.steps if name not in self.outcomes]
        for name, outcome in self.outcomes.items():
            self.progress.skipped(name, outcome.seconds)
        with self._warm_host(todo), ThreadPoolExecutor(self.pipeline.jobs) as pool:
            try:
                self._schedule(pool, todo)
            except BaseException:
                self._stop_children()
                raise
        return [self.outcomes[name] for name in self.steps]

    def _plan(self) -> None:
        """Find out which steps are finished; a step whose upstream runs again runs again too."""
        self.states = look(self.pipeline, self.restart, self.digests)
        for name, state in self.states.items():
            if not state.is_finished:
                continue
            if state.adopts:
                self._adopt(self.steps[name], state)
            if state.restores:
                attempts.restore(self.output, name)
                self.progress.tell(f"  {name}: its result was moved aside and is put back")
            # a run that was killed right after the record was written left what it had replaced
            self._forget_replaced(name)
            seconds = state.record.seconds if state.record is not None else 0.0
            self.outcomes[name] = Outcome(name, seconds, skipped=True)

    def _adopt(self, step: Step, state: State) -> None:
        outputs = outputs_of(step, self.output)
        known = lineage.describe(step, outputs, datetime.now(UTC), self.digests, self.pipeline.overrides)
        inputs = state.inputs
        attempts.record(
            self.output, records.StepRecord(step.name, inputs.fingerprint, 0.0, None, dict(inputs.parts), known)
        )
        self.progress.tell(f"  {step.name}: its training had ended, but was not recorded; it is taken as it is")

    def _forget_replaced(self, name: str) -> None:
        for entry in attempts.finish(self.output, name, self.restart):
            aside = Path(entry.aside)
            text = (
                f"{entry.path} as it was is kept in {aside} ({attempts.size_text(aside)}); delete it, or run --restart"
            )
            self.progress.tell(f"  {name}: {text}")

    def _schedule(self, pool: ThreadPoolExecutor, todo: list[str]) -> None:
        waiting, running = list(todo), dict[Future[Outcome], str]()
        failures: list[PipelineError] = []
        while waiting or running:
            ready = [name for name in waiting if all(need in self.outcomes for need in self.needs[name])]
            free = self.pipeline.jobs - len(running)
            # as many as there is room for, in the order of the file: what stands first is finished first
            for name in ready[:free] if not failures else []:
                waiting.remove(name)
                running[pool.submit(self._run_step, self.steps[name])] = name
            if not running:
                break
            done, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                name = running.pop(future)
                try:
                    self.outcomes[name] = future.result()
                except PipelineError as error:
                    failures.append(error)
        if failures:
            raise failures[0]

    def _run_step(self, step: Step) -> Outcome:
        state, outputs = self.states[step.name], outputs_of(step, self.output)
        # what the steps before wrote was not there when the run was planned
        upstream = {need: self.states[need].inputs.fingerprint for need in self.needs[step.name]}
        written = written_by(self.pipeline)
        inputs = state.inputs = step_inputs(step, self.pipeline, upstream, self.digests, written)
        attempt = attempts.Attempt(step.name, inputs.fingerprint, dict(inputs.parts))
        if state.resumes is None:
            for moved in attempts.begin(self.output, attempt, step.kind, outputs):
                self.progress.tell(f"  {step.name}: {moved.path} was moved to {moved.aside}")
        else:
            attempts.resume(self.output, attempt)
            checkpoints.delete_later(state.resumes)
            self.progress.tell(f"  {step.name}: goes on from {state.resumes}")
        log = self.output / "logs" / f"{step.name}.log"
        if log.exists():
            log.replace(log.with_name(f"{step.name}.previous.log"))
        started, began = time.monotonic(), datetime.now(UTC)
        with self.progress.step(step.name, self._trainer_log(step), log):
            with self.lock:
                if self.stopping:
                    raise PipelineError(f"step {step.name} was not started.")
                child = self.children[step.name] = self._start(step, log)
            status = child.wait()
        missing = [str(path) for path in outputs if not path.exists() or (path.is_symlink() and not any_in(path))]
        if status != 0 or missing:
            reason = f"ended with status {status}" if status else f"did not write {', '.join(missing)}"
            raise PipelineError(f"step {step.name} {reason}; its log {log} ends:\n{_tail(log)}")
        seconds = time.monotonic() - started
        known = lineage.describe(step, outputs, began, self.digests, self.pipeline.overrides)
        record = records.StepRecord(
            step.name, attempt.fingerprint, seconds, child.cpu_seconds, dict(attempt.inputs), known
        )
        attempts.record(self.output, record)
        with self.lock:
            self.digests.save()
            lineage.write(self.pipeline)
        self._forget_replaced(step.name)
        return Outcome(step.name, seconds, skipped=False)

    def _start(self, step: Step, log: Path) -> Child:
        environment = {**self.pipeline.environment, **step.environment, **mark(self.output)}
        file = self._host_file(step)
        if file is not None:
            arguments = [step.kind, str(file)]
            if self.warm is not None:
                return self.warm.start(arguments, log, environment, step.processes)
            if step.processes > 1:
                environment |= {"FORCE_TORCHRUN": "1", "NPROC_PER_NODE": str(step.processes)}
            arguments = [sys.executable, "-m", "llamafactory.cli", *arguments]
            return CommandChild(arguments, log, environment, self.inherited)
        if step.evaluate is not None:
            arguments = ["eval", str(self.path), *self.pipeline.overrides, "--step", step.name]
            if self.warm is not None:
                return self.warm.start(arguments, log, environment, program="slm")
            arguments = [sys.executable, "-m", "slm_plugin", *arguments]
            return CommandChild(arguments, log, environment, self.inherited)
        known = {"python": sys.executable}
        words = [known.get(word, word.replace("{output}", str(self.output))) for word in step.command or []]
        return CommandChild(words, log, environment, self.inherited)

    def _host_file(self, step: Step) -> Path | None:
        """Return the YAML to train or export with: that of the step, or a copy of it with the step's settings."""
        checkpoint = self.states[step.name].resumes if step.name in self.states else None
        config = host_config(step) if step.settings or checkpoint is not None else None
        if config is None:
            return None if step.file is None else Path(step.file)
        if checkpoint is not None:
            # overwriting would delete the log of the steps before
            config |= {"resume_from_checkpoint": str(checkpoint), "overwrite_output_dir": False}
        file = self.output / records.FOLDER / f"{step.name}.yaml"
        records.write_text(file, yaml.safe_dump(config, sort_keys=False, allow_unicode=True))
        return file

    def _trainer_log(self, step: Step) -> Path | None:
        folders = configured_folders(step) if step.train is not None else []
        return folders[0] / "trainer_log.jsonl" if folders else None

    @contextmanager
    def _warm_host(self, todo: list[str]) -> Iterator[None]:
        wanted = self.pipeline.warm_host and any(self.steps[name].kind != "command" for name in todo)
        if not wanted or _has_accelerator():
            yield
            return
        environment = {**self.pipeline.environment, **mark(self.output)}
        self.warm = WarmHost(self.output / "logs" / "host.log", environment, self.inherited)
        try:
            yield
        finally:
            self.warm.close()

    def _stop_children(self) -> None:
        with self.lock:
            self.stopping = True
            children = list(self.children.values())
        for child in children:
            child.stop()


def any_in(path: Path) -> bool:
    """Tell whether a file is there, or a folder with something in it."""
    return not path.is_dir() or any(path.iterdir())


def _has_accelerator() -> bool:
    import torch

    return torch.accelerator.is_available()


def _tail(log: Path) -> str:
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").replace("\r", "\n").splitlines()
    except OSError:
        return "(no log)"
    return "\n".join(f"  {line}" for line in lines[-LOG_TAIL_LINES:])
