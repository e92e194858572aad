"""The matrix of each variant of a run, from the scores that its evaluations left, finished or not."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from slm_plugin import card
from slm_plugin.errors import SlmError
from slm_plugin.pipeline.plan import Evaluation, variants
from slm_plugin.pipeline.runner import scores_path
from slm_plugin.report.content import Cell, Variant, Verdict
from slm_plugin.report.folder import RunFolder, read_object
from slm_plugin.report.forgetting import learned_rows, numbers

_GATE = re.compile(r"gate (.+?): (\S+) (at (?:least|most)) (\S+): (?:not measured|(\S+), (\w+).*)")


def read_scores(run: RunFolder) -> dict[str, dict[str, Any]]:
    """Return the content of every file of scores by the name of its evaluation; empty ones are left out."""
    rows = [step.evaluate for step in run.pipeline.steps if step.evaluate is not None]
    found = {row.stage: read_object(scores_path(run.path, row.stage)) for row in rows}
    return {stage: content for stage, content in found.items() if content}


def skill_names(run: RunFolder, scores: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return the skills in the order of the pipeline, of ``matrix.json``, or of the scores."""
    named = [skill.skill for skill in run.pipeline.skills] or read_object(run.path / "matrix.json").get("skills", [])
    return list(dict.fromkeys([*named, *(skill for content in scores.values() for skill in content)]))


def directions(scores: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """Return ``higher`` or ``lower`` by skill."""
    return {skill: score["better"] for content in scores.values() for skill, score in content.items()}


def gate_stages(run: RunFolder, gates: Sequence[Verdict]) -> dict[str, str]:
    """Return the row that teaches each skill with a gate: the gate's, by the name it has in the matrix."""
    rows = [step.evaluate for step in run.pipeline.steps if step.evaluate is not None]
    labels = {row.stage: row.label or row.stage for row in rows}
    return {gate.skill: labels.get(gate.stage, gate.stage) for gate in reversed(gates)}


def read_gates(run: RunFolder, scores: Mapping[str, Mapping[str, Any]]) -> list[Verdict]:
    """Compare scores with the gates of the pipeline; without its file, with those that ``summary.txt`` names."""
    if run.file is None:
        return _summarised(run, scores)
    found = []
    for gate in run.pipeline.gates:
        value = scores.get(gate.stage, {}).get(gate.skill, {}).get("value")
        passed = None if value is None else gate.passes(value)
        found.append(Verdict(gate.stage, gate.skill, gate.text(), value, passed))
    return found


def read_variants(
    run: RunFolder,
    scores: Mapping[str, Mapping[str, Any]],
    learned: Mapping[str, str],
    gates: Mapping[str, str],
    chance: Mapping[str, float],
) -> list[Variant]:
    """Return the matrix of each variant with its forgetting; variants without a score are left out."""
    skills, better = skill_names(run, scores), directions(scores)
    shades = _Shades(scores, better)
    found = []
    for name, rows in variants(run.pipeline).items():
        measured = [row for row in rows if row.stage in scores]
        if not measured:
            continue
        stages = [_label(row) for row in measured]
        cells = [[_cell(scores[row.stage].get(skill), skill, shades) for skill in skills] for row in measured]
        taught = learned_rows(stages, skills, cells, learned, gates)
        rates = {skill: row for skill, row in taught.items() if is_rate(scores, skill)}
        result = numbers(stages, skills, cells, better, rates, chance)
        names = [row.stage for row in measured]
        variant = Variant(name or run.name, stages, names, skills, cells, taught, result)
        last = measured[-1]
        finished, labelled = rows[-1] is last, last.label is not None
        others = [skill for skill in taught if skill not in rates]
        found.append(
            replace(variant, finished=finished, labelled=labelled, trained=_trained(run, last), other_scales=others)
        )
    if run.file is not None:
        return found
    # without the pipeline file, what was planned is known from the other variants alone
    return [replace(one, finished=not _goes_on(one, found)) for one in found]


def _goes_on(variant: Variant, others: Sequence[Variant]) -> bool:
    """Tell whether another variant has rows after the last one of this."""
    return any(variant.stages[-1] in other.stages[:-1] for other in others)


def _trained(run: RunFolder, row: Evaluation) -> str:
    folder = run.locate(row.adapter or row.model)
    try:
        return str((card.read(folder).get("stage") if folder is not None else None) or "")
    except SlmError:
        return ""


def is_rate(scores: Mapping[str, Mapping[str, Any]], skill: str) -> bool:
    """Tell whether a skill's scores are shares or error rates, over which a mean of skills can be taken.

    A score is one if it came with its items, and otherwise if none of its values is outside 0 to 1.
    """
    found = [content[skill] for content in scores.values() if skill in content]
    return any(score.get("items") for score in found) or all(0 <= score["value"] <= 1 for score in found)


class _Shades:
    """The scale of each skill: 0 to 1 for rates, the range that occurs for numbers beyond it."""

    def __init__(self, scores: Mapping[str, Mapping[str, Any]], better: Mapping[str, str]) -> None:
        self.better = better
        self.values: dict[str, list[float]] = {}
        for content in scores.values():
            for skill, score in content.items():
                self.values.setdefault(skill, []).append(score["value"])

    def of(self, skill: str, value: float) -> float:
        """Return 0 for the worst to 1 for the best; error rates above 1 are as bad as 1."""
        low, high = min(self.values[skill]), max(self.values[skill])
        if self.better[skill] == "higher":
            return _clipped(value / max(1.0, high))
        if low > 1:
            return _clipped((high - value) / (high - low)) if high > low else 0.5
        return _clipped(1.0 - value)


def _clipped(share: float) -> float:
    return round(min(1.0, max(0.0, share)), 4)


def _label(row: Evaluation) -> str:
    return row.label or row.stage


def _cell(score: Mapping[str, Any] | None, skill: str, shades: _Shades) -> Cell | None:
    if score is None:
        return None
    notes = {str(name): float(value) for name, value in (score.get("notes") or {}).items()}
    shade = shades.of(skill, score["value"])
    return Cell(score["value"], score["n"], score.get("standard_error"), notes, shade)


def _summarised(run: RunFolder, scores: Mapping[str, Mapping[str, Any]]) -> list[Verdict]:
    summary = run.path / "summary.txt"
    text = summary.read_text(encoding="utf-8", errors="replace") if summary.is_file() else ""
    found = []
    for stage, skill, side, bound, _, verdict in _GATE.findall(text):
        value = scores.get(stage, {}).get(skill, {}).get("value")
        passed = None if not verdict else verdict == "learned"
        found.append(Verdict(stage, skill, f"{side} {bound}", value, passed))
    return found
