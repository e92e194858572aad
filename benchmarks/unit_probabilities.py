"""Why merging costs speech answers: how probable each kind of token is before and after.

The first model answers spoken questions greedily; every model then says how probable it finds these answers, token
by token. Tokens are of five kinds: the transcript of the question, the written answer, the words of the
spoken answer, the first unit of each of its words, and the units after the first.

    python benchmarks/unit_probabilities.py QUESTIONS OUTPUT.json NAME=MODEL[:ADAPTER] ...
"""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from transformers import AutoTokenizer

from slm_plugin.data.rows import units
from slm_plugin.eval.generator import load_generator
from slm_plugin.eval.rows import read_rows
from slm_plugin.pipeline.records import write_json
from slm_plugin.stages.sqa import SECTION_BREAK
from slm_plugin.vocabulary import UnitVocabulary, units_to_text

KINDS = ("transcript", "written answer", "spoken words", "first units", "later units")
LONGEST = 128


def kinds(ids: Sequence[int], breaks: frozenset[int], vocabulary: UnitVocabulary) -> list[str]:
    """Return the kind of each token of an answer; a break between sections belongs to the section before it."""
    found, section, was_unit = [], 0, False
    for token in ids:
        is_unit = vocabulary.is_unit(token)
        if is_unit:
            found.append(KINDS[4] if was_unit else KINDS[3])
        else:
            found.append(KINDS[min(section, 2)])
        section += token in breaks
        was_unit = is_unit
    return found


def main() -> None:
    """Score the first model's answers with every model."""
    questions, output = sys.argv[1], Path(sys.argv[2])
    names = dict(argument.split("=", 1) for argument in sys.argv[3:])
    chats: list[tuple[str, str]] = []
    breaks: frozenset[int] = frozenset()
    found: dict[str, Any] = {}
    for name, folders in names.items():
        model, _, adapter = folders.partition(":")
        generator = load_generator(Path(model), Path(adapter) if adapter else None)
        assert generator.vocabulary is not None, "the models speak"
        if not chats:
            breaks = frozenset(AutoTokenizer.from_pretrained(model).encode(SECTION_BREAK, add_special_tokens=False))
            rows = read_rows(questions)
            prompts = [units_to_text(units(row, "input_unit", generator.vocabulary.count)) for row in rows]
            chats = list(zip(prompts, generator.answer(prompts, LONGEST), strict=True))
        logs: dict[str, list[float]] = defaultdict(list)
        lowest: dict[str, list[float]] = defaultdict(list)
        for ids, values in generator.log_probabilities(chats):
            of_kind: dict[str, list[float]] = defaultdict(list)
            for kind, value in zip(kinds(ids, breaks, generator.vocabulary), values, strict=True):
                of_kind[kind].append(value)
            for kind, all_values in of_kind.items():
                logs[kind] += all_values
                lowest[kind].append(min(all_values))
        found[name] = {
            kind: {
                "tokens": len(logs[kind]),
                "mean_log_probability": float(np.mean(logs[kind])),
                "below_half": float(np.mean(np.exp(logs[kind]) < 0.5)),
                "answers_below_half": float(np.mean(np.exp(lowest[kind]) < 0.5)),
            }
            for kind in KINDS
            if logs[kind]
        }
    write_json(output, {"questions": questions, "answers": len(chats), "models": found})


if __name__ == "__main__":
    main()
