"""Keys that a train or export YAML may have, read from LLaMA-Factory's sources, because importing it takes 10 s."""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from slm_plugin.config import parse_block
from slm_plugin.errors import ConfigError, Problem, suggest
from slm_plugin.pipeline.overrides import PLACE
from slm_plugin.pipeline.plan import Step, host_config
from slm_plugin.plugins import Registry

BLOCK = "slm"
_SOURCES = {"llamafactory": ("hparams/*.py",), "transformers": ("training_args.py", "training_args_seq2seq.py")}


def check_settings(step: Step, changes: Mapping[str, Any], registry: Registry) -> list[Problem]:
    """Say what is wrong with keys that the command line changes in the YAML of a step.

    Args:
        step: The step, the changes in its settings.
        changes: Values by dotted key.
        registry: For the ``slm:`` block.
    """
    config, known = host_config(step) or {}, host_keys()
    problems, where = [], f"{PLACE}: steps.{step.name}.{step.kind}"
    for key in changes:
        top = key.split(".")[0]
        if known and top not in known:
            problems.append(Problem(f"{where}.{key}", f"LLaMA-Factory has no key {top!r}. {_nearest(top, known)}"))
    if any(key.split(".")[0] == BLOCK for key in changes) and config.get(BLOCK) is not None:
        try:
            parse_block(config[BLOCK], registry, f"{where}.{BLOCK}")
        except ConfigError as error:
            problems += error.problems
    return problems


@functools.cache
def host_keys() -> frozenset[str]:
    """Return the top-level keys of a train or export YAML; none if LLaMA-Factory's sources are not there."""
    found: set[str] = set()
    for package, patterns in _SOURCES.items():
        spec = find_spec(package)
        if spec is None or spec.origin is None:
            return frozenset()
        files = [file for pattern in patterns for file in Path(spec.origin).parent.glob(pattern)]
        if not files:
            return frozenset()
        for file in files:
            found |= _fields(file.read_text(encoding="utf-8"))
    return frozenset({*found, BLOCK})


def _fields(source: str) -> set[str]:
    """Return the annotated names of all classes in a module."""
    classes = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.ClassDef)]
    lines = [line for node in classes for line in node.body if isinstance(line, ast.AnnAssign)]
    return {line.target.id for line in lines if isinstance(line.target, ast.Name)}


def _nearest(key: str, known: Iterable[str]) -> str:
    """Return the nearest key alone: there are hundreds."""
    hint = suggest(key, known).partition("? ")
    return f"{hint[0]}?" if hint[1] else "See LLaMA-Factory's documentation, or the YAML of the step."
