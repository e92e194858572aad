"""A pipeline file: steps, what each needs, the skills to measure and the gates they must pass."""

from __future__ import annotations

import copy
import graphlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import Field, PrivateAttr, model_validator
from yaml import YAMLError

from slm_plugin.errors import ConfigError, PipelineError, Problem, suggest
from slm_plugin.eval.protocol import Skill
from slm_plugin.generation.engines import EngineName
from slm_plugin.pipeline.overrides import PLACE, Applied, Moved, apply, assign, read_overrides, seeded, seeded_command
from slm_plugin.plugins import Registry
from slm_plugin.strict import Strict, parse

OUTPUT_KEYS = {"train": "output_dir", "export": "export_dir"}
"""Key of the train or export YAML that names the folder that it writes."""


class Step(Strict):
    """One step: exactly one of ``train``, ``export``, ``evaluate`` and ``command``."""

    name: str = Field(pattern=r"^[A-Za-z0-9_.-]+$")
    """Name of the step; its log and record are called after it."""

    needs: list[str] | None = None
    """Steps that must be finished first; the step above this one unless set."""

    train: str | None = None
    """Train YAML, run by ``llamafactory-cli train``."""

    export: str | None = None
    """Export YAML, run by ``llamafactory-cli export``."""

    evaluate: Evaluation | None = None
    """A model to score with every skill of the pipeline; one row of the matrix."""

    command: list[str] | None = None
    """Any command line; ``{output}`` stands for the pipeline's output folder, ``python`` for ours."""

    processes: int = Field(default=1, ge=1)
    """How many processes of this machine train together; for ``train`` only."""

    inputs: list[str] = Field(default_factory=list)
    """Further files and folders, written by no step, whose change makes the step run again."""

    outputs: list[str] = Field(default_factory=list)
    """Files and folders that must be there for the step to count as finished."""

    environment: dict[str, str] = Field(default_factory=dict)
    """Environment variables of the step, such as ``FORCE_TORCHRUN: "1"``."""

    settings: dict[str, Any] = Field(default_factory=dict)
    """Keys of the train or export YAML that have another value in this step, such as ``{max_steps: 100}``. Mappings
    are merged, lists are replaced."""

    @model_validator(mode="after")
    def _one_kind(self) -> Step:
        kinds = [kind for kind in ("train", "export", "evaluate", "command") if getattr(self, kind) is not None]
        if len(kinds) != 1:
            given = ", ".join(kinds) or "none"
            raise ValueError(f"a step is exactly one of train, export, evaluate and command; given: {given}.")
        if self.settings and self.file is None:
            raise ValueError("settings change the YAML of train or export; this step has neither.")
        return self

    @property
    def file(self) -> str | None:
        """The train or export YAML; None for steps of another kind."""
        return self.train or self.export

    @property
    def kind(self) -> Literal["train", "export", "evaluate", "command"]:
        """Which of the four this step is."""
        if self.train is not None:
            return "train"
        if self.export is not None:
            return "export"
        return "evaluate" if self.evaluate is not None else "command"


class Evaluation(Strict):
    """A model, or a base with an adapter on it."""

    model: str
    """Folder of the model."""

    adapter: str | None = None
    """Folder of an adapter on it."""

    stage: str
    """Name of the row in the matrix; a name of its own for every evaluation of the file."""

    label: str | None = None
    """What the row is called in tables, such as ``sqa``; ``stage`` unless set."""

    variants: list[str] = Field(default_factory=list)
    """Variants that the row belongs to, such as ``replay 5 %``; all of them unless set: the common prefix."""


class Gate(Strict):
    """A score that must be reached before a forgetting number means anything."""

    stage: str
    """Row of the matrix."""

    skill: str
    """Column of the matrix."""

    at_least: float | None = None
    """Lowest score that passes, for skills where higher is better."""

    at_most: float | None = None
    """Highest score that passes, for error rates."""

    @model_validator(mode="after")
    def _one_bound(self) -> Gate:
        if (self.at_least is None) == (self.at_most is None):
            raise ValueError("a gate has exactly one of at_least and at_most.")
        return self

    def passes(self, value: float) -> bool:
        """Tell whether a score is good enough."""
        return value >= self.at_least if self.at_least is not None else value <= (self.at_most or 0.0)

    def text(self) -> str:
        """Return the bound in words."""
        return f"at least {self.at_least}" if self.at_least is not None else f"at most {self.at_most}"


class Pipeline(Strict):
    """The keys of a pipeline file. All paths are relative to the folder ``slm run`` is started in."""

    output: str
    """Folder for everything the pipeline leaves behind."""

    jobs: int = Field(default=1, ge=1)
    """How many steps may run at the same time."""

    warm_host: bool = False
    """Import the host once and fork every host step from there; saves its start-up time on a CPU machine."""

    engine: EngineName = "auto"
    """What evaluations generate with: ``vllm``, ``transformers``, or ``auto``: vLLM where it and a GPU are there."""

    skills: list[Skill] = Field(default_factory=list)
    """Columns of the matrix."""

    gates: list[Gate] = Field(default_factory=list)
    """Scores that a stage must reach to count as learned."""

    steps: list[Step] = Field(min_length=1)
    """What to do."""

    environment: dict[str, str] = Field(default_factory=dict)
    """Environment variables of every step."""

    seed: int | None = Field(default=None, ge=0)
    """Seed of every step that has one: of trainings, unit vocabularies and merges, and of commands with ``--seed``.
    Those of their own files unless set. Evaluations draw the same items under every seed."""

    _overrides: tuple[str, ...] = PrivateAttr(())

    @property
    def overrides(self) -> tuple[str, ...]:
        """The ``key=value`` arguments that it was read with."""
        return self._overrides


Step.model_rebuild()

Check = Callable[[Step, Mapping[str, Any]], list[Problem]]
"""Says what is wrong with the changed keys of a step's YAML."""


def read(path: Path) -> Pipeline:
    """Read a pipeline file for what it says alone: the files that it names may be gone.

    Raises:
        PipelineError: The file cannot be read or is not YAML.
        ConfigError: Lists the keys and values that no pipeline has.
    """
    return parse(Pipeline, _read_raw(path), path.name)


def load(path: Path, registry: Registry, arguments: Sequence[str] = (), check: Check | None = None) -> Pipeline:
    """Read and check a pipeline file.

    Args:
        path: The file.
        registry: For the probes of its skills.
        arguments: ``key=value`` changes from the command line.
        check: Looks at the keys that ``arguments`` change in the YAML of a step.

    Raises:
        PipelineError: The file cannot be read or is not YAML.
        ConfigError: Lists every problem in it and in the arguments.
    """
    raw, problems, moved = _read_raw(path), list[Problem](), None
    applied = Applied({}, {})
    if isinstance(raw, dict):
        overrides, fields = read_overrides(arguments, problems), list(Pipeline.model_fields)
        changed = copy.deepcopy(raw)
        applied = apply(changed, overrides, fields, problems)
        before, after = raw.get("output"), changed.get("output")
        if isinstance(before, str) and isinstance(after, str) and before != after:
            moved = Moved(before, after, _written(changed))
            # what the arguments name is meant as it is
            changed = moved.content(raw)
            apply(changed, overrides, fields, [])
        raw = changed
    try:
        pipeline = parse(Pipeline, raw, path.name)
    except ConfigError as error:
        problems += [_placed(problem, applied, path.name) for problem in error.problems]
        if not applied.places:
            raise ConfigError(problems) from None
        try:
            # without the arguments that are wrong, what else is wrong can be reported at once
            pipeline = parse(Pipeline, _read_raw(path), path.name)
        except ConfigError:
            raise ConfigError(problems) from None
    problems += _check_steps(pipeline, path.name) + _check_skills(pipeline, registry, path.name)
    steps = []
    for step in pipeline.steps:
        if step.file is not None and Path(step.file).is_file():
            changes = applied.host.get(step.name, {})
            step = _with_settings(step, pipeline.seed, moved, changes, problems)
            if check is not None and changes:
                problems += check(step, changes)
        elif step.command is not None and pipeline.seed is not None:
            step = step.model_copy(update={"command": seeded_command(step.command, pipeline.seed)})
        steps.append(step)
    if problems:
        raise ConfigError(problems)
    pipeline = pipeline.model_copy(update={"steps": steps})
    pipeline._overrides = tuple(arguments)
    return pipeline


def _read_raw(path: Path) -> Any:
    try:
        return OmegaConf.to_container(OmegaConf.load(path), resolve=True)
    except OSError as error:
        raise PipelineError(f"{path} cannot be read: {error.strerror}.") from None
    except (YAMLError, OmegaConfBaseException) as error:
        raise PipelineError(f"{path} is not a valid pipeline file: {error}") from None


def _placed(problem: Problem, applied: Applied, name: str) -> Problem:
    """Return a problem with the argument that caused it as its place."""
    for place, key in applied.places.items():
        if problem.where.startswith(f"{name}{place}"):
            return Problem(f"{PLACE}: {key}{problem.where.removeprefix(f'{name}{place}')}", problem.what)
    return problem


def _written(raw: Mapping[str, Any]) -> list[str]:
    """Return what the steps of a pipeline that was not parsed yet write; what is wrong in it is reported later."""
    found: list[Any] = []
    steps = raw.get("steps")
    for step in steps if isinstance(steps, list) else []:
        if not isinstance(step, Mapping):
            continue
        found += step["outputs"] if isinstance(step.get("outputs"), list) else []
        for kind, key in OUTPUT_KEYS.items():
            file = step.get(kind)
            if isinstance(file, str) and Path(file).is_file():
                found.append(_host_yaml(file).get(key))
    return [path for path in found if isinstance(path, str) and "{output}" not in path]


def _with_settings(
    step: Step, seed: int | None, moved: Moved | None, changes: Mapping[str, Any], problems: list[Problem]
) -> Step:
    """Return a step with all that is different in its YAML as its settings."""
    assert step.file is not None
    before = _host_yaml(step.file)
    config = copy.deepcopy(merged(before, step.settings))
    if moved is not None:
        config = moved.content(config)
    if seed is not None:
        config = seeded(config, step.kind, seed)
    for key, value in changes.items():
        try:
            assign(config, key.split("."), value)
        except LookupError as error:
            where = f"{PLACE}: steps.{step.name}.{step.kind}.{key}"
            problems.append(Problem(where, f"does not fit {step.file}: {error.args[0]}"))
    settings = {key: value for key, value in config.items() if key not in before or before[key] != value}
    return step.model_copy(update={"settings": settings})


def host_config(step: Step) -> dict[str, Any] | None:
    """Return the content of the YAML that a step trains or exports with; None for steps of another kind."""
    return None if step.file is None else merged(_host_yaml(step.file), step.settings)


def merged(content: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return a YAML's content with changes merged into it: mappings key by key, everything else as a whole."""
    found = dict(content)
    for key, value in changes.items():
        old = found.get(key)
        found[key] = merged(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return found


def _host_yaml(file: str) -> dict[str, Any]:
    try:
        content = OmegaConf.to_container(OmegaConf.load(file))
    except (OSError, YAMLError, OmegaConfBaseException) as error:
        raise PipelineError(f"{file} is not a valid YAML file: {' '.join(str(error).split())[:200]}") from None
    if not isinstance(content, dict):
        raise PipelineError(f"{file} must hold keys and values.")
    return {str(key): value for key, value in content.items()}


def variants(pipeline: Pipeline) -> dict[str, list[Evaluation]]:
    """Return the evaluations of each variant in the order of the file; ``{"": all}`` where none is named."""
    found = [step.evaluate for step in pipeline.steps if step.evaluate is not None]
    names = list(dict.fromkeys(name for evaluation in found for name in evaluation.variants))
    return {name: [row for row in found if not row.variants or name in row.variants] for name in names or [""]}


def needs(pipeline: Pipeline) -> Mapping[str, tuple[str, ...]]:
    """Return what each step needs, defaults filled in, in the order of the file."""
    found: dict[str, tuple[str, ...]] = {}
    before: str | None = None
    for step in pipeline.steps:
        found[step.name] = tuple(step.needs) if step.needs is not None else ((before,) if before else ())
        before = step.name
    return found


def _check_steps(pipeline: Pipeline, where: str) -> list[Problem]:
    problems, names = [], [step.name for step in pipeline.steps]
    for name in sorted({name for name in names if names.count(name) > 1}):
        problems.append(Problem(f"{where}.steps", f"two steps are called {name!r}."))
    rows = [step.evaluate.stage for step in pipeline.steps if step.evaluate is not None]
    for row in sorted({row for row in rows if rows.count(row) > 1}):
        problems.append(Problem(f"{where}.steps", f"two evaluations are of the stage {row!r}; use label for tables."))
    for position, step in enumerate(pipeline.steps):
        spot = f"{where}.steps[{position}] ({step.name})"
        for need in step.needs or []:
            if need not in names:
                problems.append(
                    Problem(f"{spot}.needs", f"no step is called {need!r}. {suggest(need, names, 'Steps')}")
                )
        for key in ("train", "export"):
            file = getattr(step, key)
            if file is not None and not Path(file).is_file():
                problems.append(Problem(f"{spot}.{key}", f"there is no file {file}."))
    if not problems:
        try:
            tuple(graphlib.TopologicalSorter(dict(needs(pipeline))).static_order())
        except graphlib.CycleError as error:
            problems.append(
                Problem(f"{where}.steps", f"steps need each other in a circle: {' -> '.join(error.args[1])}.")
            )
    return problems


def _check_skills(pipeline: Pipeline, registry: Registry, where: str) -> list[Problem]:
    problems = []
    for position, skill in enumerate(pipeline.skills):
        spot = f"{where}.skills[{position}] ({skill.skill})"
        if skill.probe not in registry.probes:
            text = f"no probe is called {skill.probe!r}. {suggest(skill.probe, registry.probes.names(), 'Registered')}"
            problems.append(Problem(f"{spot}.probe", text))
            continue
        try:
            parse(registry.probes.get(skill.probe).Options, skill.options, f"{spot}.options")
        except ConfigError as error:
            problems += error.problems
    stages = [step.evaluate.stage for step in pipeline.steps if step.evaluate is not None]
    columns = [skill.skill for skill in pipeline.skills]
    for position, gate in enumerate(pipeline.gates):
        spot = f"{where}.gates[{position}]"
        if gate.stage not in stages:
            problems.append(
                Problem(f"{spot}.stage", f"no step evaluates {gate.stage!r}. {suggest(gate.stage, stages)}")
            )
        if gate.skill not in columns:
            problems.append(
                Problem(f"{spot}.skill", f"no skill is called {gate.skill!r}. {suggest(gate.skill, columns)}")
            )
    return problems
