"""Every method against forgetting on the tiny world, one row a method: skills after SQA, gates, cost.

One pipeline with a shared prefix (text model, units base) trains every path of ``tiny_methods.py`` through
the stock host, changes the last models by discounts and merges, and scores everything. It is resumable:
finished steps are skipped. ``cost`` is the processor time of training the three stages over plain sequential
training's. One seed unless asked for another.

    python benchmarks/mitigations.py [--only "replay 5 %" ...] [--seed 1126] [--jobs 2] [--table]
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console
from tiny_methods import ENDED, ENDS, EXPERTS, PATHS, STAGES

from slm_plugin.errors import SlmError
from slm_plugin.pipeline import plan, records, results, runner
from slm_plugin.pipeline.progress import Progress
from slm_plugin.plugins import Registry

TINY = Path("examples/tiny")
DATA = TINY / "data"
SKILLS = ("text_qa", "instructions", "asr_wer", "tts_wer", "sqa_heard", "sqa_unheard")
OWN_TEXT_ROWS = 1000


def slug(name: str) -> str:
    """Return a name as a folder and step name."""
    return re.sub(r"[^a-z0-9.]+", "_", name.lower()).strip("_")


class Builder:
    """Writes the YAML of every step and collects the steps.

    Args:
        output: Folder for everything.
        seed: Seed of all training.
    """

    def __init__(self, output: Path, seed: int) -> None:
        self.output, self.seed = output, seed
        self.base = output / "units_base"
        self.steps: list[dict[str, Any]] = []
        self.data = output / "data"

    def add(self, name: str, needs: list[str], **step: Any) -> str:
        """Append a step and return its name."""
        self.steps.append({"name": name, "needs": needs, **step})
        return name

    def config(self, source: str, name: str, **changes: Any) -> str:
        """Write a changed copy of one of the tiny world's YAMLs and return its path."""
        content = yaml.safe_load((TINY / source).read_text(encoding="utf-8"))
        content = {key: value for key, value in (content | changes).items() if value is not None}
        return self.write(name, content)

    def write(self, name: str, content: dict[str, Any]) -> str:
        """Write a YAML of ours and return its path."""
        path = self.output / "configs" / f"{name}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
        return str(path)

    def prefix(self) -> None:
        """Make the text model, the units base, and the text that the base writes itself."""
        random_base, base = self.output / "random_base", self.output / "base"
        self.add(
            "random_base",
            [],
            command=["python", str(TINY / "make_base.py"), str(random_base)],
            inputs=[str(TINY / "make_base.py"), str(TINY / "world")],
            outputs=[str(random_base)],
        )
        changes = {"model_name_or_path": str(random_base), "output_dir": str(base), "seed": self.seed}
        self.add("base", ["random_base"], train=self.config("base.yaml", "base", **changes), processes=2)
        changes = {"model_name_or_path": str(base), "export_dir": str(self.base)}
        self.add("units_base", ["base"], export=self.config("units_base.yaml", "units_base", **changes))
        self.evaluate("base", ["base"], str(base))

    def own_text(self) -> None:
        """Let the base answer the questions of its text again: replay without the original answers."""
        program = str(Path(__file__).with_name("own_text.py"))
        command = ["python", program, str(self.output / "base"), str(self.data), str(OWN_TEXT_ROWS), str(self.seed)]
        self.add("own_text", ["base"], command=command, inputs=[program, str(DATA)], outputs=[str(self.data)])

    def path(self, name: str, mitigations: Any, stages: tuple[str, ...], data: Path) -> str:
        """Train the stages of a path and return the last step."""
        folder, adapter = self.output / slug(name), None
        before = "own_text" if data == self.data else "units_base"
        for stage in stages:
            block = {"stage": stage, "units": {"codec": "tiny"}, "mitigations": mitigations(stage)}
            changes = {
                "model_name_or_path": str(self.base),
                "adapter_name_or_path": adapter,
                "output_dir": str(folder / stage),
                "dataset_dir": str(data),
                "per_device_train_batch_size": 32,
                "seed": self.seed,
                "slm": block,
            }
            key = f"{slug(name)}.{stage}"
            before = self.add(key, [before], train=self.config(f"{stage}_no_replay.yaml", key, **changes))
            adapter = str(folder / stage)
            row = name if stage == stages[-1] else f"{name}: {stage}"
            self.evaluate(row, [before], str(self.base), adapter)
        return before

    def end(self, path: str, last: str, name: str, block: dict[str, Any], uses_adapter: bool) -> None:
        """Export a changed model of a path and score it."""
        folder = self.output / slug(path)
        row = f"{path} + {name}"
        known = {"{path}": str(folder), "{base}": str(self.base)}
        text = json.dumps(block)
        for key, value in known.items():
            text = text.replace(key, value)
        model = self.output / slug(row)
        changes: dict[str, Any] = {
            "model_name_or_path": str(self.base),
            "adapter_name_or_path": str(folder / "sqa") if uses_adapter else None,
            "finetuning_type": "lora",
            "export_dir": str(model),
            "slm": json.loads(text),
        }
        step = self.add(slug(row), [last], export=self.config("export.yaml", slug(row), **changes))
        self.evaluate(row, [step], str(model))

    def experts(self) -> None:
        """Train three experts from the units base, average them with it, and go on once from the average."""
        content = yaml.safe_load(Path("examples/experts/experts.yaml").read_text(encoding="utf-8"))
        folder = self.output / EXPERTS
        content |= {"parent": str(self.base), "output": str(folder), "skills": [], "jobs": 1}
        path = self.write(EXPERTS, content)
        average = str(folder / "round2" / "average")
        command = ["python", "-m", "slm_plugin", "experts", path]
        step = self.add(EXPERTS, ["units_base"], command=command, inputs=[path], outputs=[average])
        self.evaluate("experts, round 1", [step], str(folder / "round1" / "average"))
        self.evaluate("experts, round 2", [step], average)

    def evaluate(self, row: str, needs: list[str], model: str, adapter: str | None = None) -> None:
        """Score a model as one row."""
        wanted = {"model": model, "stage": slug(row)} | ({"adapter": adapter} if adapter else {})
        self.add(f"eval_{slug(row)}", needs, evaluate=wanted)


def build(output: Path, seed: int, jobs: int, only: list[str]) -> Path:
    """Write the pipeline and return its file."""
    builder = Builder(output, seed)
    builder.prefix()
    chosen = [path for path in PATHS if not only or path.name in only or path.name == "sequential"]
    if any("own text" in path.name for path in chosen):
        builder.own_text()
    for path in chosen:
        data = builder.data if "own text" in path.name else DATA
        last = builder.path(path.name, path.mitigations, path.stages, data)
        for end in ENDS if path.name in ENDED else ():
            builder.end(path.name, last, end.name, end.block, end.uses_adapter)
    if not only or EXPERTS in only:
        builder.experts()
    tiny = yaml.safe_load((TINY / "pipeline.yaml").read_text(encoding="utf-8"))
    content = {key: tiny[key] for key in ("warm_host", "environment", "skills")}
    content |= {"output": str(output), "jobs": jobs, "steps": builder.steps}
    return Path(builder.write("pipeline", content))


def table(output: Path) -> str:
    """Return the Markdown table of what has been measured."""

    def scores(row: str) -> dict[str, Any]:
        path = runner.scores_path(output, slug(row))
        return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}

    def seconds(path: str) -> float | None:
        found = [records.read(output, f"{slug(path)}.{stage}") for stage in STAGES]
        times = [record.cpu_seconds for record in found if record is not None and record.cpu_seconds]
        return sum(times) if len(times) == len(STAGES) else None

    plain = seconds("sequential")
    names = {path.name: path.name for path in PATHS}
    names |= {f"{path} + {end.name}": path for path in ENDED for end in ENDS}
    rows = [("base", None), *((name, names[name]) for name in names), ("experts, round 1", None)]
    rows.append(("experts, round 2", None))
    lines = [f"| method | {' | '.join(SKILLS)} | ASR gate | TTS gate | cost |", "|---" * (len(SKILLS) + 4) + "|"]
    counts: dict[str, int] = {}
    for name, path in rows:
        found = scores(name)
        if not found:
            continue
        counts |= {skill: found[skill]["n"] for skill in found}
        cells = [f"{found[skill]['value']:.3f}" if skill in found else "" for skill in SKILLS]
        gates = [_gate(scores(f"{path}: asr"), "asr_wer", 0.20), _gate(scores(f"{path}: tts"), "tts_wer", 0.30)]
        took = seconds(path) if path is not None else None
        cost = f"{took / plain:.2f}" if took is not None and plain else ""
        lines.append(f"| {name} | {' | '.join(cells + (gates if path else ['', '']))} | {cost} |")
    lines.append(f"| n | {' | '.join(str(counts.get(skill, '')) for skill in SKILLS)} | | | |")
    return "\n".join(lines)


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
    if not options.table:
        path = build(options.output, options.seed, options.jobs, options.only)
        try:
            pipeline = plan.load(path, Registry.load())
            with Progress(Console()) as progress:
                outcomes = runner.run(pipeline, path, progress)
        except SlmError as error:
            sys.exit(f"{type(error).__name__}: {error}")
        results.write_results(pipeline, outcomes)
    print(table(options.output))


if __name__ == "__main__":
    main()
