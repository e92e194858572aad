"""User turns for a stage, and rows made of what a model answers to them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from slm_plugin.data import rows
from slm_plugin.errors import DataError
from slm_plugin.replay_synthesis import filter as reasons
from slm_plugin.replay_synthesis.options import Limits
from slm_plugin.replay_synthesis.protocol import Draft
from slm_plugin.stages.protocol import Stage
from slm_plugin.stages.sqa import SECTION_BREAK
from slm_plugin.vocabulary import text_to_units

OWN_SPEECH = "own_speech"
"""Value of the column ``origin`` where the units of an ``asr`` row are the model's own speech."""

_N_SECTIONS = 3
_PLACEHOLDERS: dict[str, dict[str, str]] = {
    "llm": {"output": "a"},
    "asr": {"transcription": "a"},
    "tts": {"interleaf": "a<|0|>"},
    "sqa": {"input_pseudo": "a", "output_pseudo": "a", "output_7306_interleaf": "a<|0|>"},
}
"""An answer for each stage, so that it can be asked for the user turn alone."""


@dataclass(frozen=True)
class Task:
    """How rows of a stage are asked for and put together.

    Attributes:
        asks: Name of the stage whose user turns are answered.
        drafts: What to ask.
        complete: Makes the row of a draft and the model's text, or says why there is none.
    """

    asks: str
    drafts: list[Draft]
    complete: Callable[[Mapping[str, Any], str], dict[str, Any] | str]


def make_task(
    name: str, prompts: Sequence[Mapping[str, Any]], stages: Mapping[str, Stage], unit_count: int, limits: Limits
) -> Task:
    """Return what to ask for the rows of a stage.

    Args:
        name: Stage whose rows are wanted.
        prompts: Rows whose answers are ignored.
        stages: The stages by name.
        unit_count: Units in the vocabulary.
        limits: What a row must be like.

    Raises:
        DataError: No row of the prompts can be asked.
        VocabularyError: A unit is out of range.
    """
    asks = name
    if name == "asr" and not any(_has_units(row) for row in prompts):
        asks = "tts"
    given = [_given(asks, row, unit_count) for row in prompts]
    drafts = [draft for row in given if row and (draft := make_draft(asks, row, stages[asks], unit_count))]
    if not drafts:
        raise DataError(f"no row of the prompts can be asked for {name}; {_wanted(name)}")

    def complete(row: Mapping[str, Any], text: str) -> dict[str, Any] | str:
        made = _COMPLETE[asks](row, text, limits)
        if isinstance(made, dict) and asks != name:
            made = _heard(made)
        # whatever the stage would read otherwise than it was written is no row of the stage
        if isinstance(made, dict) and stages[name].sample(made, unit_count) is None:
            return reasons.EMPTY
        return made

    return Task(asks, drafts, complete)


def make_draft(name: str, given: dict[str, Any], stage: Stage, unit_count: int) -> Draft | None:
    """Return the question of a row's given columns as the stage asks it; None where they are empty."""
    sample = stage.sample({**given, **_PLACEHOLDERS[name]}, unit_count)
    return Draft(given, sample.user) if sample else None


def _has_units(row: Mapping[str, Any]) -> bool:
    return any(row.get(name) for name in ("units", "discrete_unit"))


def _given(name: str, row: Mapping[str, Any], unit_count: int) -> dict[str, Any]:
    """Return the columns of a row that a prompt is made of, under the names of the published data sets."""
    if name == "llm":
        return {"input": rows.text(row, "input|instruction")}
    if name == "sqa":
        return {"input_unit": rows.units(row, "question_units|input_unit", unit_count)}
    kept = {"instruction": row["instruction"]} if row.get("instruction") else {}
    if name == "tts":
        return {**kept, "transcription": rows.text(row, "transcription|text|input")}
    if not _has_units(row):
        return {}
    return {**kept, "discrete_unit": rows.units(row, "units|discrete_unit", unit_count)}


def _wanted(name: str) -> str:
    column = {"llm": "input", "asr": "discrete_unit, or transcription", "tts": "transcription", "sqa": "input_unit"}
    return f"they need the column {column[name]}, not empty."


def _complete_llm(row: Mapping[str, Any], text: str, limits: Limits) -> dict[str, Any] | str:
    if text_to_units(text):
        return reasons.UNITS
    return {**row, "output": text.strip()}


def _complete_asr(row: Mapping[str, Any], text: str, limits: Limits) -> dict[str, Any] | str:
    if text_to_units(text):
        return reasons.UNITS
    return {**row, "transcription": text.strip()}


def _complete_tts(row: Mapping[str, Any], text: str, limits: Limits) -> dict[str, Any] | str:
    return reasons.interleaving_problem(text, row["transcription"], limits) or {**row, "interleaf": text.strip()}


def _complete_sqa(row: Mapping[str, Any], text: str, limits: Limits) -> dict[str, Any] | str:
    parts = [part.strip() for part in text.split(SECTION_BREAK)]
    if len(parts) != _N_SECTIONS or not all(parts):
        return reasons.SECTIONS
    heard, answer, spoken = parts
    if text_to_units(heard) or text_to_units(answer):
        return reasons.UNITS
    problem = reasons.interleaving_problem(spoken, answer, limits)
    return problem or {**row, "input_pseudo": heard, "output_pseudo": answer, "output_7306_interleaf": spoken}


_COMPLETE: dict[str, Callable[[Mapping[str, Any], str, Limits], dict[str, Any] | str]] = {
    "llm": _complete_llm,
    "asr": _complete_asr,
    "tts": _complete_tts,
    "sqa": _complete_sqa,
}


def _heard(spoken: Mapping[str, Any]) -> dict[str, Any]:
    """Turn a spoken row into one to listen to: its units in, its text out."""
    kept = {name: spoken[name] for name in ("instruction", "transcription") if name in spoken}
    return {**kept, "discrete_unit": text_to_units(spoken["interleaf"]), "origin": OWN_SPEECH}
