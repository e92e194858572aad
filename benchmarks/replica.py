"""The paper's table on the tiny world: every method, several seeds where it matters, and the paper's open questions.

One pipeline trains what ``replica_methods.py`` lists; ways that begin alike are trained once. Finished steps are
skipped, so a run that was stopped, or killed, goes on where it was. Afterwards ``slm report`` writes its page, and
``docs/replica.md`` is written with the table, a figure and the time taken (``--docs`` names another folder).

    make replica                                  # or: python benchmarks/replica.py [--seeds 1126 1127 1128]
    python benchmarks/replica.py --page           # writes the page again from what is there; trains nothing
    python benchmarks/replica.py --quick --output /tmp/replica --docs /tmp/replica    # minutes; learns nothing
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import replica_page
import yaml
from replica_methods import (
    ANSWERS_ONLY,
    ENDED,
    EXPERTS,
    MERGED,
    METHODS,
    QUESTIONS,
    REPLICA_ENDS,
    SEEDED,
    WEAKER,
)
from tiny_methods import Path as Way
from tiny_pipeline import DATA, Builder, run_pipeline, slug, tiny_skills

SEEDS = (1126, 1127, 1128)
QUICK = 100
QUICK_ROWS = 4


def skills(rows: int | None) -> list[dict[str, Any]]:
    """Return the tiny world's skills and, new, spoken answers that a recogniser must understand."""
    found = tiny_skills()
    aloud = {"speech": True, "templates": str(DATA / "templates.jsonl"), "codec": "tiny"}
    for name in ("sqa_heard", "sqa_unheard"):
        options = {"data": str(DATA / f"eval_{name}.jsonl"), **aloud}
        found.append({"skill": f"{name}_aloud", "probe": "spoken_qa", "options": options})
    for skill in found if rows is not None else ():
        skill["options"]["n"] = rows
    return found


def build(output: Path, seeds: Sequence[int], jobs: int, quick: bool, only: Sequence[str] = ()) -> Path:
    """Write the pipeline, what matters most first, and return its file."""
    builder = Builder(output, seeds[0], QUICK if quick else 1)
    builder.prefix()

    def wanted(ways: Sequence[Way]) -> list[Way]:
        return [way for way in ways if not only or way.name in only]

    for way in wanted(METHODS):
        last = builder.path(way)
        for end in REPLICA_ENDS if way.name in ENDED else ():
            builder.end(way.name, last, end)
        if way.name == MERGED:
            for end in WEAKER:
                builder.end(way.name, last, end)
            _probabilities(builder, last)
    for way in wanted(QUESTIONS):
        builder.path(way)
    if not only:
        _experts(builder)
    for seed in seeds[1:]:
        for way in wanted(METHODS):
            if way.name in SEEDED:
                builder.path(way, seed)
    return builder.finish(skills(QUICK_ROWS if quick else None), jobs)


def _experts(builder: Builder) -> None:
    """Average three experts, each trained from the units base on one task."""
    builder.path(ANSWERS_ONLY)
    members = {"asr": "sequential", "tts": QUESTIONS[0].name, "sqa": ANSWERS_ONLY.name}
    folders = {stage: builder.adapters[name][stage] for stage, name in members.items()}
    needs = [f"{folder.parent.name}.{stage}" for stage, folder in folders.items()]
    for name, weight in EXPERTS.items():
        content = {
            "parent": str(builder.base),
            "output": str(builder.output / slug(name)),
            "parent_weight": weight,
            "experts": [{"name": stage, "model": str(folder)} for stage, folder in folders.items()],
        }
        path = builder.write(slug(name), content)
        average = str(builder.output / slug(name) / "round1" / "average")
        command = ["python", "-m", "slm_plugin", "experts", path]
        builder.add(slug(name), needs, command=command, inputs=[path], outputs=[average])
        builder.evaluate(f"{slug(name)}.average", [slug(name)], average, None, "average", [name])


def _probabilities(builder: Builder, last: str) -> None:
    """Measure token by token what merging does to answers, heard and unheard questions apart."""
    program = str(Path(__file__).with_name("unit_probabilities.py"))
    exported = {end.name: slug(f"{MERGED} + {end.name}") for end in (*REPLICA_ENDS, *WEAKER)}
    models = [f"{MERGED}={builder.base}:{builder.adapters[MERGED]['sqa']}"]
    models += [f"{name}={builder.output / step}" for name, step in exported.items()]
    for kind in replica_page.QUESTION_KINDS:
        questions, found = str(DATA / f"eval_sqa_{kind}.jsonl"), str(builder.output / f"probabilities_{kind}.json")
        builder.add(
            f"probabilities_{kind}",
            [last, *exported.values()],
            command=["python", program, questions, found, *models],
            inputs=[program, questions],
            outputs=[found],
        )


def report(pipeline: Path, output: Path) -> None:
    """Write the page of ``slm report``; a skill counts as learned after its stage where that stage has a row."""
    evaluations = [step["evaluate"] for step in yaml.safe_load(pipeline.read_text())["steps"] if "evaluate" in step]
    rows = {row.get("label") or row["stage"] for row in evaluations}
    learned = {"tts_wer": "tts", **dict.fromkeys(replica_page.SPOKEN, "sqa")}
    command = [sys.executable, "-m", "slm_plugin", "report", str(output), "--codec", "tiny"]
    command += ["--title", "The replica on the tiny world"]
    command += [word for skill, row in learned.items() if row in rows for word in ("--learned", f"{skill}={row}")]
    subprocess.run(command, check=True)


def main() -> None:
    """Run what is not finished, then write the report and the page of the documentation."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", nargs="+", type=int, default=list(SEEDS), help="the first is that of everything")
    parser.add_argument("--only", nargs="+", default=[], help="names of replica_methods.py; all unless given")
    parser.add_argument("--jobs", type=int, default=2, help="trainings at the same time, one thread each")
    parser.add_argument("--output", type=Path, default=Path("runs/replica"))
    parser.add_argument("--docs", type=Path, default=Path("docs"), help="folder for replica.md and images/replica.svg")
    parser.add_argument("--note", default="", help="a sentence for the page, such as what else the machine did")
    parser.add_argument("--quick", action="store_true", help="a hundredth of the steps and four rows a skill")
    parser.add_argument("--page", action="store_true", help="write the page of what is there and train nothing")
    options = parser.parse_args()
    path = options.output / "configs" / "pipeline.yaml"
    if not options.page or not path.is_file():
        path = build(options.output, options.seeds, options.jobs, options.quick, options.only)
    if not options.page:
        run_pipeline(path)
        report(path, options.output)
    for written in replica_page.write(path, options.docs, options.seeds, options.note):
        print(f"wrote {written}")


if __name__ == "__main__":
    main()
