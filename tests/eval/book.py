"""A model that answers from a book, and what tests of probes ask of it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from slm_plugin.eval.evaluate import evaluate
from slm_plugin.plugins import Registry
from slm_plugin.records import Score
from slm_plugin.vocabulary import UnitVocabulary

UNITS = UnitVocabulary(116, 100)


class Book:
    """A generator that looks its answers up and remembers what it was asked."""

    def __init__(self, answer: Callable[[str], str], vocabulary: UnitVocabulary | None = UNITS) -> None:
        self.vocabulary = vocabulary
        self._answer = answer
        self.asked: list[str] = []

    def answer(self, prompts: Sequence[str], max_new_tokens: int) -> list[str]:
        self.asked += prompts
        return [self._answer(prompt) for prompt in prompts]


def score(registry: Registry, probe: str, generator: Any, **options: Any) -> Score:
    return evaluate(generator, [("column", probe, options)], registry)["column"]


def write(path: Path, rows: Sequence[Mapping[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)
