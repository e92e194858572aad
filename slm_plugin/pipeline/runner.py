"""Runs the steps of a pipeline in order of need, several at a time, and skips what is finished."""

from __future__ import annotations

import graphlib
import shutil
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
from slm_plugin.pipeline import lineage, records
from slm_plugin.pipeline.fingerprints import Inputs, changes, step_inputs
from slm_plugin.pipeline.lock import locked
from slm_plugin.pipeline.plan import OUTPUT_KEYS, Pipeline, Step, host_config, needs
from slm_plugin.pipeline.processes import Child, CommandChild, WarmHost
from slm_plugin.pipeline.progress import Progress

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
        reasons: Why it runs; empty where it is finished.
    """

    name: str
    reasons: tuple[str, ...]


def intentions(pipeline: Pipeline) -> list[Intention]:
    """Say of every step whether it would run now, and why, in the order of the file."""
    reasons, _, _ = _look(pipeline)
    return [Intention(step.name, tuple(reasons[step.name])) for step in pipeline.steps]


def run(pipeline: Pipeline, path: Path, progress: Progress) -> list[Outcome]:
    """Run every step that is not finished.

    Args:
        pipeline: The parsed pipeline.
        path: Its file, which evaluations read again.
        progress: Where to report.

    Returns:
        An outcome per step, in the order of the file.

    Raises:
        PipelineError: A step failed, while steps that do not need it were allowed to end; or another run is at work
            in the output folder.
        KeyboardInterrupt: The user stopped it; all children have ended.
    """
    return _Run(pipeline, path, progress).run()


class _Run:
    def __init__(self, pipeline: Pipeline, path: Path, progress: Progress) -> None:
        self.pipeline, self.path, self.progress = pipeline, path, progress
        self.output = Path(pipeline.output)
        self.steps = {step.name: step for step in pipeline.steps}
        self.needs = needs(pipeline)
        self.inputs: dict[str, Inputs] = {}
        self.outcomes: dict[str, Outcome] = {}
        self.children: dict[str, Child] = {}
        self.lock = threading.Lock()
        self.stopping = False
        self.inherited: tuple[int, ...] = ()
        self.warm: WarmHost | None = None

    def run(self) -> list[Outcome]:
        (self.output / "logs").mkdir(parents=True, exist_ok=True)
        with locked(self.output, self.progress.tell) as lock:
            self.inherited = (lock,)
            return self._run()

    def _run(self) -> list[Outcome]:
        self._plan()
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
        reasons, self.inputs, finished = _look(self.pipeline)
        for name, record in finished.items():
            if not reasons[name]:
                self.outcomes[name] = Outcome(name, record.seconds, skipped=True)

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
        records.forget(self.output, step.name)
        for path in outputs_of(step, self.output):
            # what an interrupted run left behind must not be taken for a result, or trained on
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        log = self.output / "logs" / f"{step.name}.log"
        log.unlink(missing_ok=True)
        started, began = time.monotonic(), datetime.now(UTC)
        with self.progress.step(step.name, self._trainer_log(step), log):
            with self.lock:
                if self.stopping:
                    raise PipelineError(f"step {step.name} was not started.")
                child = self.children[step.name] = self._start(step, log)
            status = child.wait()
        outputs = outputs_of(step, self.output)
        missing = [str(path) for path in outputs if not path.exists()]
        if status != 0 or missing:
            reason = f"ended with status {status}" if status else f"did not write {', '.join(missing)}"
            raise PipelineError(f"step {step.name} {reason}; its log {log} ends:\n{_tail(log)}")
        seconds = time.monotonic() - started
        inputs, known = self.inputs[step.name], lineage.describe(step, outputs, began, self.pipeline.overrides)
        record = records.StepRecord(
            step.name, inputs.fingerprint, seconds, child.cpu_seconds, dict(inputs.parts), known
        )
        records.write(self.output, record)
        with self.lock:
            lineage.write(self.pipeline)
        return Outcome(step.name, seconds, skipped=False)

    def _start(self, step: Step, log: Path) -> Child:
        environment = {**self.pipeline.environment, **step.environment}
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
        config = host_config(step) if step.settings else None
        if config is None:
            return None if step.file is None else Path(step.file)
        file = self.output / records.FOLDER / f"{step.name}.yaml"
        records.write_text(file, yaml.safe_dump(config, sort_keys=False, allow_unicode=True))
        return file

    def _trainer_log(self, step: Step) -> Path | None:
        folders = _configured(step) if step.train is not None else []
        return folders[0] / "trainer_log.jsonl" if folders else None

    @contextmanager
    def _warm_host(self, todo: list[str]) -> Iterator[None]:
        wanted = self.pipeline.warm_host and any(self.steps[name].kind != "command" for name in todo)
        if not wanted or _has_accelerator():
            yield
            return
        self.warm = WarmHost(self.output / "logs" / "host.log", self.pipeline.environment, self.inherited)
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


def outputs_of(step: Step, output: Path) -> list[Path]:
    """Return the files and folders that must be there when a step has ended."""
    named = [Path(name.replace("{output}", str(output))) for name in step.outputs]
    named += _configured(step)
    if step.evaluate is not None:
        named.append(scores_path(output, step.evaluate.stage))
    return named


def _look(
    pipeline: Pipeline,
) -> tuple[dict[str, list[str]], dict[str, Inputs], dict[str, records.StepRecord]]:
    """Return why each step must run (nothing for finished ones), what decides it, and its last record."""
    output, needed = Path(pipeline.output), needs(pipeline)
    steps = {step.name: step for step in pipeline.steps}
    reasons: dict[str, list[str]] = {}
    inputs: dict[str, Inputs] = {}
    finished: dict[str, records.StepRecord] = {}
    for name in graphlib.TopologicalSorter(dict(needed)).static_order():
        upstream = {need: inputs[need].fingerprint for need in needed[name]}
        inputs[name] = step_inputs(steps[name], pipeline, upstream)
        record = records.read(output, name)
        if record is None:
            reasons[name] = ["it has not been finished"]
            continue
        finished[name] = record
        reasons[name] = []
        if record.fingerprint != inputs[name].fingerprint:
            reasons[name] += changes(record.inputs, inputs[name].parts) or ["what it is made from changed"]
        reasons[name] += [f"{path} is missing" for path in outputs_of(steps[name], output) if not path.exists()]
        told = {f"step {need} has another result" for need in needed[name]}
        again = [need for need in needed[name] if reasons[need]]
        if again:
            reasons[name] = [reason for reason in reasons[name] if reason not in told]
            reasons[name] += [f"step {need} runs again" for need in again]
    return reasons, inputs, finished


def scores_path(output: Path, stage: str) -> Path:
    """Return where an evaluation step leaves its scores."""
    return output / "scores" / f"{stage}.json"


def _configured(step: Step) -> list[Path]:
    """Return the folder that a training or an export writes."""
    config = host_config(step)
    value = config.get(OUTPUT_KEYS[step.kind]) if config is not None else None
    return [Path(value)] if value else []


def _has_accelerator() -> bool:
    import torch

    return torch.accelerator.is_available()


def _tail(log: Path) -> str:
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").replace("\r", "\n").splitlines()
    except OSError:
        return "(no log)"
    return "\n".join(f"  {line}" for line in lines[-LOG_TAIL_LINES:])
