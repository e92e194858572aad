"""What a pipeline leaves for people: ``matrix.json``, ``counts.json`` and ``summary.txt``."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from slm_plugin import card
from slm_plugin.eval.matrix import Matrix
from slm_plugin.pipeline import records
from slm_plugin.pipeline.outputs import outputs_of
from slm_plugin.pipeline.plan import Gate, Pipeline, variants
from slm_plugin.pipeline.runner import Outcome, scores_path
from slm_plugin.records import Score


def write_results(pipeline: Pipeline, outcomes: Sequence[Outcome]) -> str:
    """Write matrix, counts and summary into the output folder and return the summary.

    ``matrix.json`` is the matrix of the first variant, ``variants.json`` holds that of each.
    """
    output = Path(pipeline.output)
    matrices = read_matrices(pipeline)
    matrix = next(iter(matrices.values()))
    records.write_json(output / "matrix.json", matrix.as_json())
    records.write_json(output / "variants.json", {name: found.as_json() for name, found in matrices.items()})
    records.write_json(output / "counts.json", replay_counts(pipeline))
    summary = _summary(pipeline, matrices, outcomes)
    records.write_text(output / "summary.txt", summary)
    return summary


def write_scores(path: Path, scores: Mapping[str, Score]) -> None:
    """Write the scores of one evaluation."""
    content = {
        skill: {
            "value": score.value,
            "n": score.n,
            "better": score.better,
            "standard_error": score.standard_error,
            "examples": list(score.examples),
            "notes": dict(score.notes),
            "items": [list(item) for item in score.items],
        }
        for skill, score in scores.items()
    }
    records.write_json(path, content)


def read_matrices(pipeline: Pipeline) -> dict[str, Matrix]:
    """Collect the scores of all evaluation steps that have run, a matrix per variant."""
    found = {}
    for name, rows in variants(pipeline).items():
        matrix = found[name] = Matrix([skill.skill for skill in pipeline.skills])
        for row in rows:
            content: Any = records.read_json(scores_path(Path(pipeline.output), row.stage))
            if content is not None:
                matrix.add(row.label or row.stage, {skill: Score(skill, **cell) for skill, cell in content.items()})
    return found


def replay_counts(pipeline: Pipeline) -> dict[str, dict[str, int]]:
    """Return ``{stage: {data set: rows}}`` from the cards of what was trained.

    A stage has the name of the evaluation of what it trained, and without one that of its step.
    """
    rows = [step.evaluate for step in pipeline.steps if step.evaluate is not None]
    counts, evaluated = {}, {Path(row.adapter or row.model) for row in rows}
    for step in pipeline.steps:
        row = step.evaluate
        if row is not None:
            found = card.read(Path(row.adapter or row.model))
            if found and (row.adapter is not None or found.get("replay")):
                counts[row.stage] = dict(found.get("replay", {}))
        for folder in outputs_of(step, Path(pipeline.output)) if step.train is not None else []:
            replayed = card.read(folder).get("replay")
            if replayed and folder not in evaluated:
                taken = step.name in (row.stage for row in rows)
                counts[str(folder) if taken else step.name] = dict(replayed)
    return counts


def _summary(pipeline: Pipeline, matrices: Mapping[str, Matrix], outcomes: Sequence[Outcome]) -> str:
    transcript = Path(pipeline.output) / "transcript.txt"
    parts = []
    if transcript.is_file():
        parts.append(transcript.read_text(encoding="utf-8").rstrip())
    for name, matrix in matrices.items():
        if matrix.skills:
            parts.append((f"variant {name}\n" if name else "") + _table(matrix))
        if matrix.notes:
            parts.append("to read the scores by (last stage)\n" + "\n".join(_note_lines(matrix)))
    if pipeline.gates:
        parts.append("\n".join(_gate_line(gate, pipeline) for gate in pipeline.gates))
    counts = [
        f"  {stage}: {', '.join(f'{name} {rows}' for name, rows in found.items())}"
        for stage, found in replay_counts(pipeline).items()
        if found
    ]
    if counts:
        parts.append("rows replayed\n" + "\n".join(counts))
    total = sum(outcome.seconds for outcome in outcomes)
    times = [f"  {o.name:<16}{o.seconds:7.1f} s{'  (finished before)' if o.skipped else ''}" for o in outcomes]
    times.append(f"  {'sum':<16}{total:7.1f} s")
    busy_s = _busy_seconds(pipeline, outcomes)
    if busy_s is not None:
        times.append(f"  {'elapsed':<16}{busy_s:7.1f} s")
    parts.append(f"time of each step{'' if busy_s is None else ' (several ran at once)'}\n" + "\n".join(times))
    return "\n\n".join(parts) + "\n"


def _busy_seconds(pipeline: Pipeline, outcomes: Sequence[Outcome]) -> float | None:
    """Return the seconds in which a step ran, by the records of the steps; None if no two ran at the same time."""
    spans = []
    for outcome in outcomes:
        record = records.read(Path(pipeline.output), outcome.name)
        try:
            known = record.lineage if record is not None else {}
            spans.append([datetime.fromisoformat(known[end]).timestamp() for end in ("started", "ended")])
        except (KeyError, TypeError, ValueError):
            continue
    busy_s, until, overlap = 0.0, -math.inf, False
    for started, ended in sorted(spans):
        overlap = overlap or started < until
        busy_s += max(0.0, ended - max(started, until))
        until = max(until, ended)
    return busy_s if overlap else None


def _table(matrix: Matrix) -> str:
    """Return the matrix as text: a row per stage, a column per skill, n and direction below."""
    width = max(12, *(len(skill) + 2 for skill in matrix.skills))
    first = max(8, *(len(stage) for stage in matrix.stages), 0) + 2
    lines = ["".ljust(first) + "".join(skill.rjust(width) for skill in matrix.skills)]
    for stage, row in zip(matrix.stages, matrix.scores, strict=True):
        cells = ["-" if value is None else f"{value:.3f}" for value in row]
        lines.append(stage.ljust(first) + "".join(cell.rjust(width) for cell in cells))
    lines.append("n".ljust(first) + "".join(str(matrix.n.get(skill, "-")).rjust(width) for skill in matrix.skills))
    directions = [matrix.better.get(skill, "-") for skill in matrix.skills]
    lines.append("better".ljust(first) + "".join(direction.rjust(width) for direction in directions))
    return "\n".join(lines)


def _note_lines(matrix: Matrix) -> list[str]:
    """Return a line per skill that came with notes, such as the ceiling of a recogniser on real audio."""
    return [
        f"  {skill}: {', '.join(f'{name} {value:.3f}' for name, value in notes.items())}"
        for skill, notes in matrix.notes.items()
    ]


def _gate_line(gate: Gate, pipeline: Pipeline) -> str:
    scores: Any = records.read_json(scores_path(Path(pipeline.output), gate.stage)) or {}
    value = scores.get(gate.skill, {}).get("value")
    what = f"gate {gate.stage}: {gate.skill} {gate.text()}"
    if value is None:
        return f"{what}: not measured"
    if gate.passes(value):
        return f"{what}: {value:.3f}, learned"
    return f"{what}: {value:.3f}, STAGE NOT LEARNED; its forgetting numbers mean nothing"
