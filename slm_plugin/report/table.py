"""``report.md``: the tables of a report in Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from slm_plugin.report.content import Cell, Forgetting, Report, RunReport, Variant
from slm_plugin.report.forgetting import DEFINITIONS
from slm_plugin.report.numbers import written


def render(report: Report) -> str:
    """Return the tables: variants side by side, spread over seeds, matrices, forgetting, gates, replay and steps."""
    parts = [f"# {_text(report.title)}"]
    if len(report.comparisons and report.comparisons[0].bars) > 1:
        parts += [_comparison(report)]
    if report.seeds:
        parts += ["## Spread over seeds", _seeds(report)]
    for run in report.runs:
        parts += [f"## {_text(run.name)}", *_run(run)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _comparison(report: Report) -> str:
    skills = [comparison.skill for comparison in report.comparisons]
    variants = dict.fromkeys(bar.variant for comparison in report.comparisons for bar in comparison.bars)
    rows = []
    for variant in variants:
        cells = []
        for comparison in report.comparisons:
            bar = next((bar for bar in comparison.bars if bar.variant == variant), None)
            if bar is None:
                cells.append(written(None))
                continue
            to = "" if bar.reference == report.first else f" to {bar.reference}"
            moved = f" ({written(bar.difference, 'signed')}{to}{', differs' if bar.differs else ''})"
            cells.append(written(bar.value) + (moved if bar.difference is not None else ""))
        bars = [bar for comparison in report.comparisons for bar in comparison.bars if bar.variant == variant]
        rows.append([variant, *cells, f"{bars[0].stage}{'' if bars[0].finished else ', unfinished'}"])
    told = (
        "Scores after the last stage of each variant that has scores. In brackets: the difference to the first variant"
        " that ended at the same stage, on the same items. It differs if its 95 % interval excludes 0"
        f" (paired bootstrap, {report.resamples} resamples, seed {report.seed})."
        " Variants that ended at different stages are not compared."
    )
    return _table(["variant", *skills, "after"], rows) + "\n\n" + told


def _seeds(report: Report) -> str:
    lines = [
        [
            *(spread.variant, spread.skill, written(spread.mean), written(spread.deviation)),
            *(written(spread.noise_floor), ", ".join(map(written, spread.values))),
        ]
        for spread in report.seeds
    ]
    return _table(["variant", "skill", "mean", "standard deviation", "noise floor", "scores"], lines) + (
        "\n\nNoise floor: twice the standard error of a difference between two such means; a smaller one says nothing."
    )


def _run(run: RunReport) -> Iterable[str]:
    for variant in run.variants:
        yield f"### {_text(variant.title)}"
        yield _matrix(run, variant)
        taught = ", ".join(f"{skill} after {found.stage} ({found.rule})" for skill, found in variant.learned.items())
        yield f"Learned: {_text(taught)}."
    if run.variants:
        yield "### Forgetting"
        names = list(DEFINITIONS)
        yield _table(["variant", *names], [[one.title, *_numbers(one.forgetting)] for one in run.variants])
        yield "\n".join(f"- {name}: {line}." for name, line in DEFINITIONS.items())
        others = dict.fromkeys(skill for variant in run.variants for skill in variant.other_scales)
        if others:
            yield f"Left out of these numbers, because their scores are no rates: {_text(', '.join(others))}."
    if run.gates:
        words = {True: "passed", False: "missed", None: "not measured"}
        yield "### Gates"
        lines = [[gate.stage, gate.skill, gate.bound, written(gate.value), words[gate.passed]] for gate in run.gates]
        yield _table(["stage", "skill", "gate", "score", "verdict"], lines)
    if run.replay:
        yield "### Rows replayed"
        sets = list(dict.fromkeys(name for rows in run.replay.values() for name in rows))
        lines = [[stage, *(written(rows.get(name), "count") for name in sets)] for stage, rows in run.replay.items()]
        yield _table(["stage", *sets], lines)
    if run.drifts:
        yield "### Drift of the weights"
        moved = [[drift.name, drift.base, written(drift.whole)] for drift in run.drifts]
        yield _table(["model", "base", "relative norm of the change"], moved)
    if run.steps:
        yield "### Steps"
        steps = [
            [
                *(step.name, step.kind, written(step.seconds, "seconds"), written(step.cpu_seconds, "seconds")),
                *(step.fingerprint or "", written(step.seed, "count")),
            ]
            for step in run.steps
        ]
        yield _table(["step", "kind", "seconds", "CPU seconds", "fingerprint", "seed"], steps)
    if run.notes:
        yield "\n".join(f"- {_text(note)}" for note in run.notes)


def _matrix(run: RunReport, variant: Variant) -> str:
    heads = ["stage", *(f"{skill} ({run.better.get(skill, 'higher')} is better)" for skill in variant.skills)]
    rows = [
        [stage, *(_cell(cell) for cell in cells)] for stage, cells in zip(variant.stages, variant.cells, strict=True)
    ]
    return _table(heads, rows)


def _cell(cell: Cell | None) -> str:
    if cell is None:
        return written(None)
    error = f" ± {written(cell.standard_error)}" if cell.standard_error is not None else ""
    return f"{written(cell.value)}{error} (n {cell.n})"


def _numbers(found: Forgetting) -> list[str]:
    signed = [found.bwt, found.forgetting, found.fwt]
    return [written(found.acc), *(written(one, "signed") for one in signed), written(found.forget_percent, "percent")]


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join("| " + " | ".join(_text(cell) for cell in line) + " |" for line in lines)


def _text(text: str) -> str:
    """Keep data from being read as Markdown or HTML."""
    for mark in ("\\", "|", "<", "`", "*", "["):
        text = text.replace(mark, "\\" + mark)
    return text.replace("\n", " ")
