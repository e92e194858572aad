"""One pipeline under several seeds: mean and spread of every last score, and the noise floor of a difference."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

from slm_plugin.errors import ConfigError, Problem
from slm_plugin.eval.statistics import noise_floor, spread
from slm_plugin.report.content import RunReport, SeedSpread, Variant


def spreads(runs: Sequence[RunReport]) -> list[SeedSpread]:
    """Return mean, deviation and noise floor over runs of every score after the last stage of every variant.

    Variants of one name that ended at the same stage belong together; that of a run with a single one belongs to those
    of other such runs.

    Args:
        runs: One pipeline, each with seeds of its own.

    Raises:
        ConfigError: There is one run only, or two have a training with the same seed.
    """
    problems = _problems(runs)
    if problems:
        raise ConfigError(problems)
    groups: dict[tuple[str, str], list[Variant]] = {}
    for run in runs:
        for variant in run.variants:
            name = "" if variant.name == run.name else variant.name
            groups.setdefault((name, variant.stages[-1]), []).append(variant)
    found = []
    for (name, stage), variants in groups.items():
        several = sum(other == name for other, _ in groups) > 1
        if name and (several or not all(variant.finished for variant in variants)):
            name = f"{name}, after {stage}"
        for skill in dict.fromkeys(skill for variant in variants for skill in variant.skills):
            values = [value for variant in variants if (value := _last(variant, skill)) is not None]
            if values:
                mean, deviation = spread(values)
                floor = None if deviation is None else noise_floor(deviation, len(values), len(values))
                found.append(SeedSpread(name or stage, skill, mean, deviation, floor, tuple(values)))
    return found


def _problems(runs: Sequence[RunReport]) -> list[Problem]:
    if len(runs) < 2:
        return [Problem("--repeats", "needs at least two runs of one pipeline.")]
    problems = []
    for first, second in combinations(runs, 2):
        seeds = {step.name: step.seed for step in first.steps if step.seed is not None}
        same = [step.name for step in second.steps if step.name in seeds and seeds[step.name] == step.seed]
        if same:
            text = f"{first.name} and {second.name} trained {same[0]} with the same seed, {seeds[same[0]]}."
            problems.append(Problem("--repeats", f"{text} Their spread is not that of seeds."))
    return problems


def _last(variant: Variant, skill: str) -> float | None:
    if skill not in variant.skills or not variant.cells:
        return None
    cell = variant.cells[-1][list(variant.skills).index(skill)]
    return None if cell is None else cell.value
