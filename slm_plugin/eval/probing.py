"""``slm.probes``: which skills are scored while a stage trains, and below which score training stops."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import Field

from slm_plugin.errors import ConfigError, Problem, suggest
from slm_plugin.eval.protocol import Probe, Skill
from slm_plugin.plugins import Registry
from slm_plugin.strict import Strict, parse

PREFIX = "eval_"
"""Before a skill's name in what the host logs; TensorBoard, W&B and SwanLab show it as ``eval/SKILL``."""

_HOSTS_OWN = ("loss", "accuracy", "runtime")


class Guard(Strict):
    """A skill that must not be lost."""

    skill: str
    """One of ``skills``."""

    floor: float = Field(allow_inf_nan=False)
    """Worst score that is accepted, the lowest where higher is better, the highest for error rates. Training stops
    when the skill was this good at an earlier scoring, in the run it resumes included, and is no longer."""


class TrainingProbes(Strict):
    """The keys of ``slm.probes``."""

    every_steps: int = Field(ge=1)
    """Optimizer steps between two scorings; the last step is scored in any case."""

    skills: list[Skill] = Field(min_length=1)
    """What to score: ``skill`` (the curve's name), ``probe`` and its ``options``, as in a pipeline file. With
    several processes each scores its share of them."""

    at_start: bool = True
    """Whether the model is scored before the first step as well: forgetting precedes learning."""

    guard: list[Guard] = Field(default_factory=list)
    """Stop training when one of these skills falls below its floor; the model of that step is saved."""

    samples: int = Field(default=3, ge=0)
    """Generations of each skill that are logged to read, and to listen to; 0 logs none."""

    codec: str | None = None
    """Codec, a name or a folder, by which units of samples become sound; that of ``units`` unless set. Without
    either, samples have no sound."""

    batch_size: int = Field(default=32, ge=1)
    """Prompts that are answered together; fewer need less memory."""


@dataclass(frozen=True)
class Watched:
    """A skill with the probe that scores it.

    Attributes:
        skill: Name of the curve.
        probe: Scores it.
        floor: Worst score that is accepted; None where it is not guarded.
    """

    skill: str
    probe: Probe
    floor: float | None = None

    @property
    def key(self) -> str:
        """What the score is logged as."""
        return PREFIX + self.skill

    def holds(self, value: float) -> bool:
        """Tell whether a score is as good as the floor; always so without one."""
        if self.floor is None:
            return True
        return value >= self.floor if self.probe.better == "higher" else value <= self.floor

    def has_fallen(self, value: float, history: Sequence[Mapping[str, Any]]) -> bool:
        """Tell whether a score is below the floor that an earlier one in the host's log kept."""
        earlier = [line[self.key] for line in history if self.key in line]
        return not self.holds(value) and any(map(self.holds, earlier))


@dataclass(frozen=True)
class ProbePlan:
    """Parsed ``slm.probes``.

    Attributes:
        options: The keys as written.
        watched: The skills in order.
    """

    options: TrainingProbes
    watched: tuple[Watched, ...]


def parse_probes(raw: Any, registry: Registry, where: str) -> ProbePlan:
    """Parse ``slm.probes`` and make the probes it names.

    Raises:
        ConfigError: Lists every problem.
    """
    options = parse(TrainingProbes, raw, where)
    problems: list[Problem] = []
    floors = {guard.skill: guard.floor for guard in options.guard}
    names = [skill.skill for skill in options.skills]
    watched = []
    for position, skill in enumerate(options.skills):
        spot = f"{where}.skills[{position}]"
        if skill.skill in names[:position]:
            problems.append(Problem(f"{spot}.skill", f"two skills are called {skill.skill!r}."))
        if skill.skill in _HOSTS_OWN:
            problems.append(Problem(f"{spot}.skill", f"the host logs an eval_{skill.skill} of its own; rename it."))
        if skill.probe not in registry.probes:
            known = suggest(skill.probe, registry.probes.names(), "Registered")
            problems.append(Problem(f"{spot}.probe", f"no probe is called {skill.probe!r}. {known}"))
            continue
        cls = registry.probes.get(skill.probe)
        given = dict(skill.options)
        if "examples" in cls.Options.model_fields:
            given.setdefault("examples", options.samples)
        try:
            probe = cls(parse(cls.Options, given, f"{spot}.options"))
        except ConfigError as error:
            problems += error.problems
            continue
        watched.append(Watched(skill.skill, probe, floors.get(skill.skill)))
    for position, guard in enumerate(options.guard):
        if guard.skill not in names:
            text = f"no skill is called {guard.skill!r}. {suggest(guard.skill, names, 'Skills')}"
            problems.append(Problem(f"{where}.guard[{position}].skill", text))
    if problems:
        raise ConfigError(problems)
    return ProbePlan(options, tuple(watched))
