"""Every method against forgetting on the tiny world, one row a method: skills after SQA, gates, cost.

One pipeline with a shared prefix (text model, units base) trains every path of ``tiny_methods.py`` through
the stock host, changes the last models by discounts and merges, and scores everything. It is resumable:
finished steps are skipped. ``cost`` is the processor time of training the three stages over plain sequential
training's. One seed unless asked for another.

    python benchmarks/mitigations.py [--only "replay 5 %" ...] [--seed 1126] [--jobs 2] [--table]
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import yaml
from tiny_methods import ENDED, ENDS, EXPERTS, PATHS
from tiny_pipeline import BASE, GATES, Builder, read_scores, run_pipeline, tiny_skills, training_seconds

SKILLS = ("text_qa", "instructions", "asr_wer", "tts_wer", "sqa_heard", "sqa_unheard")


def experts(builder: Builder) -> None:
    """Train three experts from the units base, average them with it, and go on once from the average."""
    content = yaml.safe_load(Path("examples/experts/experts.yaml").read_text(encoding="utf-8"))
    folder = builder.output / EXPERTS
    content |= {"parent": str(builder.base), "output": str(folder), "skills": [], "jobs": 1}
    path = builder.write(EXPERTS, content)
    command = ["python", "-m", "slm_plugin", "experts", path]
    rounds = {f"{EXPERTS}, round {number}": str(folder / f"round{number}" / "average") for number in (1, 2)}
    step = builder.add(EXPERTS, ["units_base"], command=command, inputs=[path], outputs=list(rounds.values()))
    for number, (name, average) in enumerate(rounds.items(), start=1):
        builder.evaluate(f"{EXPERTS}_{number}", [step], average, None, f"round {number}", [name])


def build(output: Path, seed: int, jobs: int, only: list[str]) -> Path:
    """Write the pipeline and return its file."""
    builder = Builder(output, seed)
    builder.prefix()
    for way in [path for path in PATHS if not only or path.name in only or path.name == "sequential"]:
        last = builder.path(way)
        for end in ENDS if way.name in ENDED else ():
            builder.end(way.name, last, end)
    if not only or EXPERTS in only:
        experts(builder)
    return builder.finish(tiny_skills(), jobs)


def table(pipeline: Path) -> str:
    """Return the Markdown table of what has been measured."""
    measured = read_scores(pipeline)
    plain = training_seconds(pipeline, "sequential")
    lines = [f"| method | {' | '.join(SKILLS)} | ASR gate | TTS gate | cost |", "|---" * (len(SKILLS) + 4) + "|"]
    first = next(iter(measured.values()), {}).get(BASE)
    counts: dict[str, int] = {}
    if first is not None:
        lines.append(_line("base", first, ["", ""], ""))
    for name, rows in measured.items():
        found = list(rows.values())[-1] if set(rows) - {BASE} else {}
        if not found:
            continue
        counts |= {skill: found[skill]["n"] for skill in found}
        gates = [_gate(rows.get(stage, {}), skill, limit) for stage, skill, _, limit in GATES]
        took = training_seconds(pipeline, name)
        lines.append(_line(name, found, gates, f"{took / plain:.2f}" if took and plain else ""))
    lines.append(f"| n | {' | '.join(str(counts.get(skill, '')) for skill in SKILLS)} | | | |")
    return "\n".join(lines)


def _line(name: str, scores: dict[str, Any], gates: list[str], cost: str) -> str:
    cells = [f"{scores[skill]['value']:.3f}" if skill in scores else "" for skill in SKILLS]
    return f"| {' | '.join([name, *cells, *gates, cost])} |"


def _gate(scores: dict[str, Any], skill: str, limit: float) -> str:
    if skill not in scores:
        return "not measured"
    value = scores[skill]["value"]
    return f"{value:.3f}" if value <= limit else f"{value:.3f} NOT LEARNED"


def main() -> None:
    """Run what is not finished and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", nargs="+", default=[], help="paths to run beside the sequential one")
    parser.add_argument("--seed", type=int, default=1126)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--output", type=Path, default=Path("runs/mitigations"))
    parser.add_argument("--table", action="store_true", help="print what is there and run nothing")
    options = parser.parse_args()
    path = build(options.output, options.seed, options.jobs, options.only)
    if not options.table:
        run_pipeline(path)
    print(table(path))


if __name__ == "__main__":
    main()
