"""A file of experts: the parent, who is trained from it on what, and how they are averaged.

Source: arXiv 2305.09681 (average of domain experts); the weights and rounds are those of its follow-up.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import Field, model_validator
from yaml import YAMLError

from slm_plugin.errors import ConfigError, PipelineError, Problem
from slm_plugin.eval.protocol import Skill
from slm_plugin.strict import Strict, parse


class Expert(Strict):
    """One expert: exactly one of ``train``, ``command`` and ``model``."""

    name: str = Field(pattern=r"^[A-Za-z0-9_-]+$")
    """Name of the expert; its folder in every round is called after it."""

    train: str | None = None
    """Train YAML of the host. Each round sets its model to the round's parent, without an adapter, and
    its output folder; everything else stays as written."""

    command: list[str] | None = None
    """Any other trainer. ``{parent}`` stands for the folder to start from, ``{output}`` for the folder to
    write the model or adapter to, ``{round}`` for the number of the round, ``python`` for ours."""

    model: str | None = None
    """A model or adapter that is there already; possible with one round only."""

    weight: float = 1.0
    """Its weight in the average; equal weights are the plain average, 4 among 1s favours one member."""

    processes: int = Field(default=1, ge=1)
    """How many processes of this machine train it together; for ``train`` only."""

    inputs: list[str] = Field(default_factory=list)
    """Further files and folders whose change makes its training run again."""

    @model_validator(mode="after")
    def _one_kind(self) -> Expert:
        given = [key for key in ("train", "command", "model") if getattr(self, key) is not None]
        if len(given) != 1:
            raise ValueError(
                f"an expert is exactly one of train, command and model; given: {', '.join(given) or 'none'}."
            )
        if not (math.isfinite(self.weight) and self.weight > 0):
            raise ValueError(f"the weight of an expert must be above 0, got {self.weight}.")
        return self


class Experts(Strict):
    """The keys of a file of experts. All paths are relative to the folder ``slm experts`` is started in."""

    parent: str
    """Folder of the model that the experts of the first round start from."""

    output: str
    """Folder for everything: ``round1/<expert>``, ``round1/average`` and so on."""

    rounds: int = Field(default=1, ge=1)
    """How often experts are trained and averaged; the average is the parent of the next round."""

    parent_weight: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    """Weight of the round's parent in the average; 0 leaves it out, 1 is the average "with original"."""

    experts: list[Expert] = Field(min_length=1)
    """Who is trained in each round."""

    dtype: str | None = None
    """Type of the averages, such as ``bfloat16``; the parent's unless set."""

    skills: list[Skill] = Field(default_factory=list)
    """What to score the parent, every expert and every average by; rows of the matrix."""

    jobs: int = Field(default=1, ge=1)
    """How many experts are trained at the same time."""

    warm_host: bool = False
    """Import the host once and fork every training from there; saves its start-up time on a CPU machine."""

    environment: dict[str, str] = Field(default_factory=dict)
    """Environment variables of every step."""


def load(path: Path) -> Experts:
    """Read and check a file of experts.

    Raises:
        PipelineError: The file cannot be read or is not YAML.
        ConfigError: Lists every problem in it.
    """
    try:
        raw: Any = OmegaConf.to_container(OmegaConf.load(path), resolve=True)
    except OSError as error:
        raise PipelineError(f"{path} cannot be read: {error.strerror}.") from None
    except (YAMLError, OmegaConfBaseException) as error:
        raise PipelineError(f"{path} is not a valid file of experts: {error}") from None
    plan = parse(Experts, raw, path.name)
    problems = _check(plan, path.name)
    if problems:
        raise ConfigError(problems)
    return plan


def _check(plan: Experts, where: str) -> list[Problem]:
    problems, names = [], [expert.name for expert in plan.experts]
    for name in sorted({name for name in names if names.count(name) > 1}):
        problems.append(Problem(f"{where}.experts", f"two experts are called {name!r}."))
    for position, expert in enumerate(plan.experts):
        spot = f"{where}.experts[{position}] ({expert.name})"
        if expert.name in ("average", "parent"):
            problems.append(Problem(f"{spot}.name", f"{expert.name!r} names a folder of ours; take another."))
        if expert.train is not None and not Path(expert.train).is_file():
            problems.append(Problem(f"{spot}.train", f"there is no file {expert.train}."))
        if expert.model is not None and plan.rounds > 1:
            problems.append(
                Problem(f"{spot}.model", f"a model that is there already cannot start from round {plan.rounds - 1}.")
            )
    return problems
