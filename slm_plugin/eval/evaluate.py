"""Scoring one model with a list of probes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from slm_plugin.eval.protocol import Generator
from slm_plugin.plugins import Registry
from slm_plugin.records import Score
from slm_plugin.strict import parse


def evaluate(
    generator: Generator, skills: Iterable[tuple[str, str, Mapping[str, Any]]], registry: Registry
) -> dict[str, Score]:
    """Score every skill that the model can be asked for.

    Args:
        generator: The model.
        skills: Column name, probe name and probe options of each skill.
        registry: Where the probes are.

    Returns:
        Score by column; skills that need units are absent for a model without any.

    Raises:
        PluginError: A probe is not registered.
        ConfigError: Options are wrong.
    """
    scores = {}
    for skill, name, options in skills:
        probe_class = registry.probes.get(name)
        if probe_class.needs_units and generator.vocabulary is None:
            continue
        probe = probe_class(parse(probe_class.Options, dict(options), f"{skill}.options"))
        scores[skill] = probe.score(skill, generator)
    return scores
