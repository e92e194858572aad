"""``docs/replica.md`` and its figure, from whatever ``replica.py`` has finished."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import replica_figure
from replica_methods import ENDED, EXPERTS, MERGED, METHODS, QUESTIONS, REPLICA_ENDS, SEEDED, WEAKER
from tiny_pipeline import BASE, GATES, read_scores, variant

from slm_plugin.eval.statistics import spread
from slm_plugin.pipeline import plan, records
from slm_plugin.plugins import Registry

SKILLS = {
    "text_qa": "text QA",
    "instructions": "instructions",
    "asr_wer": "ASR WER",
    "tts_wer": "TTS WER",
    "sqa_heard": "spoken QA, heard",
    "sqa_heard_aloud": "the same, aloud",
    "sqa_unheard": "spoken QA, unheard",
    "sqa_unheard_aloud": "the same, aloud",
}
SPOKEN = tuple(skill for skill in SKILLS if skill.startswith("sqa"))
QUESTION_KINDS = ("heard", "unheard")
KINDS = ("transcript", "written answer", "spoken words", "first units", "later units")

Scores = Mapping[str, Mapping[str, Any]]
Measured = Mapping[str, Mapping[str, Scores]]


def write(pipeline: Path, folder: Path, seeds: Sequence[int], note: str) -> list[Path]:
    """Write the page and its figure and return their paths.

    Args:
        pipeline: File of the pipeline; what it has not finished is named on the page.
        folder: Where ``replica.md`` and ``images`` go.
        seeds: Seeds of the run, the usual one first.
        note: A sentence about the circumstances; may be empty.
    """
    loaded = plan.load(pipeline, Registry.load())
    output = Path(loaded.output)
    measured = read_scores(pipeline)
    merging = {kind: records.read_json(output / f"probabilities_{kind}.json") for kind in QUESTION_KINDS}
    figure = folder / "images" / "replica.svg"
    replica_figure.draw(figure, _means(measured, seeds), SKILLS, merging["heard"], KINDS)
    sections = [_head(loaded, note, seeds), _methods(measured, seeds), _questions(measured, seeds)]
    sections += [_merging(merging), _time(loaded), _missing(loaded, seeds)]
    page = folder / "replica.md"
    records.write_text(page, "\n\n".join(section for section in sections if section) + "\n")
    return [page, figure]


def _head(loaded: plan.Pipeline, note: str, seeds: Sequence[int]) -> str:
    ended = max((end for _, end in _intervals(loaded)), default=datetime.now().astimezone())
    lines = [
        "# The paper's experiment on the tiny world",
        "<!-- Written by benchmarks/replica.py from what it measured; run it again instead of editing. -->",
        f"Measured on {os.cpu_count()} CPU cores, {ended:%d %B %Y}, by `make replica`. {note}".strip(),
        "A text model of .9 M parameters learns to hear (ASR), to speak (TTS) and to answer spoken questions (SQA),"
        " one stage after the other, in the [tiny world](../examples/tiny/README.md). Every method starts from the"
        " same text model and units base; a seed decides all the rest of a training: the order of the rows, the new"
        f" weights, what is replayed. Rows with ± are means over {len(seeds)} seeds and the standard deviation between"
        " them; all others are **one seed**, where small differences mean nothing. Error rates: lower is better.",
        "*Aloud* is what a recogniser understands of the spoken answer; *unheard* questions were never asked aloud in"
        " training. A stage counts as learned when ASR WER right after it is at most .20 and TTS WER at most .30;"
        " the forgetting of a skill that was not learned means nothing.",
        "![Scores of every method, and how merging changes tokens](images/replica.svg)",
    ]
    return "\n\n".join(lines)


def _methods(measured: Measured, seeds: Sequence[int]) -> str:
    rows = [_base(measured)]
    for way in METHODS:
        names = [variant(way.name, seed, seeds[0]) for seed in (seeds if way.name in SEEDED else seeds[:1])]
        rows.append(_row(way.name, [measured[name] for name in names if name in measured]))
        if way.name in ENDED:
            for end in (*REPLICA_ENDS, *(WEAKER if way.name == MERGED else ())):
                rows.append(_row(f"{way.name} + {end.name}", _one(measured, f"{way.name} + {end.name}")))
    rows += [_row(name, _one(measured, name)) for name in EXPERTS]
    notes = (
        "*Joint training* is the upper bound: 2,000 steps on all tasks at once, each with the share it has in the"
        " sequence. Merges and discounts change the last model only; their weights are the paper's, `linear .7` and"
        " `linear .5` give the last stage that share and the two before it the rest. *Experts* are three adapters,"
        " each trained from the units base on one task, averaged."
    )
    return f"## Methods\n\n{_table(rows, measured)}\n\n{notes}"


def _questions(measured: Measured, seeds: Sequence[int]) -> str:
    order = ["sequential", "replay 5 %", *(way.name for way in QUESTIONS[:2])]
    plain = ["replay 5 %", QUESTIONS[2].name]
    parts = [
        "## Open questions of the paper",
        "One seed each.",
        "### Does the order of the stages matter?",
        _table([_row(name, _one(measured, name)) for name in order], measured),
        "The usual order is ASR, TTS, SQA.",
        "### What does interleaving bring to TTS?",
        _table([_row(name, _one(measured, name)) for name in plain], measured),
        "In the second row the TTS stage, and its replay, answer with units only, no words among them; SQA is as"
        " usual.",
    ]
    return "\n\n".join(parts)


def _merging(merging: Mapping[str, Mapping[str, Any] | None]) -> str:
    parts = ["### Why does merging after replay cost answers aloud?"]
    parts.append(
        f"The model with {MERGED} answers spoken questions greedily; then every merge of it says how probable it finds"
        " each token of these answers. A cell is the share of tokens that get less than .5, in brackets that of"
        " answers with at least one such token: there greedy search may go another way."
    )
    for kind, found in merging.items():
        if found is None:
            parts.append(f"Not measured yet for {kind} questions.")
            continue
        lines = [f"| {kind} questions (n {found['answers']}) | {' | '.join(KINDS)} |", "|---" * (len(KINDS) + 1) + "|"]
        for name, kinds in found["models"].items():
            cells = [_share(kinds.get(token)) for token in KINDS]
            lines.append(f"| {name} | {' | '.join(cells)} |")
        parts.append("\n".join(lines))
    parts.append(_explained(merging["heard"]))
    return "\n\n".join(part for part in parts if part)


def _explained(found: Mapping[str, Any] | None) -> str:
    if found is None or MERGED not in found["models"]:
        return ""
    before = found["models"][MERGED]
    if not {"later units", "written answer"} <= set(before):
        return ""
    mean = {kind: before[kind]["mean_log_probability"] for kind in ("later units", "written answer")}
    return (
        f"Before any merge, a unit after the first of its word costs {-mean['later units']:.3f} nats on the mean, a"
        f" token of the written answer {-mean['written answer']:.4f}. One word can be said by many sequences of units,"
        " and the model is least sure there: a change of weights that leaves text alone can turn a unit."
    )


def _share(found: Mapping[str, Any] | None) -> str:
    return "" if found is None else f"{found['below_half']:.3f} ({found['answers_below_half']:.3f})"


def _time(loaded: plan.Pipeline) -> str:
    wall = _union(_intervals(loaded))
    found = [record for step in loaded.steps if (record := records.read(Path(loaded.output), step.name)) is not None]
    cpu = sum(record.cpu_seconds or 0.0 for record in found)
    return (
        f"## Time\n\nSteps ran for {wall / 60:.0f} minutes on the clock and took {cpu / 60:.0f} minutes of processor"
        f" time ({len(found)} of {len(loaded.steps)} steps; small scripts are not in the processor time)."
        " The target is 40 minutes on two free cores."
    )


def _missing(loaded: plan.Pipeline, seeds: Sequence[int]) -> str:
    output = Path(loaded.output)
    away = [step.name for step in loaded.steps if records.read(output, step.name) is None]
    trainings = [step.name for step in loaded.steps if step.train is not None and step.name in away]
    if not away:
        return ""
    command = f"python benchmarks/replica.py --seeds {' '.join(map(str, seeds))} --output {output}"
    return (
        f"## Not finished\n\n{len(away)} of {len(loaded.steps)} steps, {len(trainings)} trainings among them; their"
        f" rows are empty above. The run goes on where it was with\n\n<!-- needs an hour -->\n```bash\n{command}\n```"
    )


def _base(measured: Measured) -> list[str]:
    rows = next(iter(measured.values()), {})
    return ["base", *_cells([rows[BASE]] if BASE in rows else []), "", ""]


def _one(measured: Measured, name: str) -> list[Mapping[str, Scores]]:
    return [measured[name]] if name in measured else []


def _row(name: str, runs: Sequence[Mapping[str, Scores]]) -> list[str]:
    """Return the cells of a method: name, skills after the last stage, and its gates."""
    finished = [rows for rows in runs if _is_finished(name, rows)]
    lasts = [list(rows.values())[-1] for rows in finished]
    title = f"{name} ({len(lasts)} seeds)" if len(lasts) > 1 else name
    gates = [
        _gate([rows[stage] for rows in finished if stage in rows], skill, bound) for stage, skill, _, bound in GATES
    ]
    return [title, *_cells(lasts), *gates]


def _is_finished(name: str, rows: Mapping[str, Scores]) -> bool:
    """Tell whether the last row of a method has been measured; ends, experts and ways have different ones."""
    ends = {f"{way} + {end.name}": end.name for way in ENDED for end in (*REPLICA_ENDS, *WEAKER)}
    lasts = {way.name: way.row or way.stages[-1] for way in (*METHODS, *QUESTIONS)} | ends
    return lasts.get(name, "average") in rows


def _cells(lasts: Sequence[Scores]) -> list[str]:
    cells = []
    for skill in SKILLS:
        values = [scores[skill]["value"] for scores in lasts if skill in scores]
        cells.append(_number(values))
    return cells


def _number(values: Sequence[float]) -> str:
    if not values:
        return ""
    mean, deviation = spread(values)
    return f"{mean:.3f}" if deviation is None else f"{mean:.3f} ± {deviation:.3f}"


def _gate(found: Sequence[Scores], skill: str, bound: float) -> str:
    values = [scores[skill]["value"] for scores in found if skill in scores]
    if not values:
        return ""
    missed = " NOT LEARNED" if max(values) > bound else ""
    return f"{max(values):.3f}{missed}"


def _table(rows: Iterable[Sequence[str]], measured: Measured) -> str:
    head = ["method", *SKILLS.values(), "ASR gate", "TTS gate"]
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    lines += [f"| {' | '.join(row)} |" for row in rows]
    counts = {
        skill: score["n"] for rows in measured.values() for last in rows.values() for skill, score in last.items()
    }
    lines.append(f"| n | {' | '.join(str(counts.get(skill, '')) for skill in SKILLS)} | | |")
    return "\n".join(lines)


def _means(measured: Measured, seeds: Sequence[int]) -> dict[str, dict[str, float]]:
    """Return the mean score of every finished method by skill, for the figure."""
    found: dict[str, dict[str, float]] = {}
    usual = [name for name in measured if ", seed " not in name and name != "SQA alone"]
    for name in usual:
        names = [variant(name, seed, seeds[0]) for seed in seeds]
        lasts = [list(measured[n].values())[-1] for n in names if n in measured and _is_finished(name, measured[n])]
        means = {
            skill: sum(last[skill]["value"] for last in lasts) / len(lasts)
            for skill in SKILLS
            if lasts and all(skill in last for last in lasts)
        }
        if means:
            found[name] = means
    return found


def _intervals(loaded: plan.Pipeline) -> list[tuple[datetime, datetime]]:
    found = []
    for step in loaded.steps:
        record = records.read(Path(loaded.output), step.name)
        if record is not None and "started" in record.lineage:
            started, ended = (datetime.fromisoformat(record.lineage[key]) for key in ("started", "ended"))
            found.append((started, ended))
    return sorted(found)


def _union(intervals: Sequence[tuple[datetime, datetime]]) -> float:
    """Return the seconds covered by intervals that may overlap."""
    total, until = 0.0, None
    for start, end in intervals:
        begin = start if until is None or start > until else until
        if end > begin:
            total += (end - begin).total_seconds()
            until = end
    return total
