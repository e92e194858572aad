"""A pipeline of many ways to train the tiny world: steps that two ways have in common are steps once."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console
from tiny_methods import OWN_TEXT, UNITS_ONLY, End
from tiny_methods import Path as Way

from slm_plugin.errors import SlmError
from slm_plugin.pipeline import plan, records, results, runner
from slm_plugin.pipeline.progress import Progress
from slm_plugin.plugins import Registry

TINY = Path("examples/tiny")
DATA = TINY / "data"
HERE = Path(__file__).parent
OWN_TEXT_ROWS = 1000
BASE = "base"
GATES = (("asr", "asr_wer", "at_most", 0.20), ("tts", "tts_wer", "at_most", 0.30))
"""What a stage must reach right after it to count as learned: those of the tiny world's pipeline."""


def slug(name: str) -> str:
    """Return a name as a folder and step name."""
    return re.sub(r"[^a-z0-9.]+", "_", name.lower()).strip("_")


class Builder:
    """Writes the YAML of every step and collects the steps.

    Args:
        output: Folder for everything.
        seed: Seed of the text model, and of the stages unless a path has another.
        shorten: By what to divide the steps of every training; above 1 nothing is learned.
    """

    def __init__(self, output: Path, seed: int, shorten: int = 1) -> None:
        self.output, self.seed, self.shorten = output, seed, shorten
        self.base = output / "units_base"
        self.steps: list[dict[str, Any]] = []
        self.gates: list[dict[str, Any]] = []
        self.adapters: dict[str, dict[str, Path]] = {}
        self._trained: dict[str, tuple[str, Path, list[str]]] = {}
        self._rows: dict[str, list[list[str]]] = {}

    def add(self, name: str, needs: list[str], **step: Any) -> str:
        """Append a step and return its name."""
        self.steps.append({"name": name, "needs": needs, **step})
        return name

    def config(self, source: str, name: str, **changes: Any) -> str:
        """Write a changed copy of one of the tiny world's YAMLs and return its path."""
        content = yaml.safe_load((TINY / source).read_text(encoding="utf-8"))
        content = {key: value for key, value in (content | changes).items() if value is not None}
        for key in ("max_steps", "warmup_steps"):
            if key in content:
                content[key] = max(1, content[key] // self.shorten)
        return self.write(name, content)

    def write(self, name: str, content: Mapping[str, Any]) -> str:
        """Write a YAML of ours and return its path."""
        path = self.output / "configs" / f"{name}.yaml"
        records.write_text(path, yaml.safe_dump(dict(content), sort_keys=False))
        return str(path)

    def prefix(self) -> None:
        """Make the text model and the units base."""
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
        # without variants: the row belongs to all of them
        self.add(f"eval_{BASE}", ["base"], evaluate={"model": str(base), "stage": BASE})

    def data(self, kind: str) -> str:
        """Make a data folder and return the step that does."""
        if kind not in self._trained:
            folder = self.output / f"data_{kind}"
            programs = {OWN_TEXT: [str(self.output / "base"), str(folder), str(OWN_TEXT_ROWS), str(self.seed)]}
            programs[UNITS_ONLY] = [str(folder)]
            program = str(HERE / f"{kind}.py")
            self.add(
                kind,
                ["base"],
                command=["python", program, *programs[kind]],
                inputs=[program, str(DATA)],
                outputs=[str(folder)],
            )
            self._trained[kind] = (kind, folder, [])
        return kind

    def path(self, way: Way, seed: int | None = None) -> str:
        """Train the stages of a way and return the last step; what another way has trained already is its own."""
        seed = self.seed if seed is None else seed
        name = variant(way.name, seed, self.seed)
        adapter: Path | None = None
        before, known = "units_base", json.dumps(seed)
        self.adapters[name], self._rows[name] = {}, []
        for stage in way.stages:
            block = {"stage": stage, "units": {"codec": "tiny"}, "mitigations": way.mitigations(stage)}
            kind, changes = way.data.get(stage), dict(way.changes.get(stage, {}))
            known = json.dumps([known, block, kind, changes])
            if known not in self._trained:
                needs = [before, *([self.data(kind)] if kind else [])]
                step = f"{slug(name)}.{stage}"
                folder = self.output / slug(name) / stage
                changes |= {
                    "model_name_or_path": str(self.base),
                    "adapter_name_or_path": str(adapter) if adapter else None,
                    "output_dir": str(folder),
                    "dataset_dir": str(self.output / f"data_{kind}" if kind else DATA),
                    "per_device_train_batch_size": 32,
                    "seed": seed,
                    "slm": block,
                }
                self.add(step, needs, train=self.config(f"{stage}_no_replay.yaml", step, **changes))
                row = way.row if way.row and stage == way.stages[-1] else stage
                self.evaluate(step, [step], str(self.base), str(folder), row)
                self._trained[known] = (step, folder, self.steps[-1]["evaluate"]["variants"])
                self.gates += [
                    {"stage": step, "skill": skill, side: limit} for of, skill, side, limit in GATES if of == row
                ]
            before, adapter, variants = self._trained[known]
            variants.append(name)
            self._rows[name].append(variants)
            self.adapters[name][stage] = adapter
        return before

    def end(self, name: str, last: str, end: End) -> None:
        """Export a changed model of a way and score it as a variant with the way's rows before it."""
        row = f"{name} + {end.name}"
        text = json.dumps(end.block).replace("{base}", str(self.base))
        for stage, folder in self.adapters[name].items():
            text = text.replace(f"{{path}}/{stage}", str(folder))
        stages = list(self.adapters[name])
        model = self.output / slug(row)
        changes: dict[str, Any] = {
            "model_name_or_path": str(self.base),
            "adapter_name_or_path": str(self.adapters[name][stages[-1]]) if end.uses_adapter else None,
            "finetuning_type": "lora",
            "export_dir": str(model),
            "slm": json.loads(text),
        }
        step = self.add(slug(row), [last], export=self.config("export.yaml", slug(row), **changes))
        for variants in self._rows[name]:
            variants.append(row)
        self.evaluate(step, [step], str(model), None, end.name, [row])

    def evaluate(
        self,
        stage: str,
        needs: list[str],
        model: str,
        adapter: str | None,
        label: str,
        variants: Sequence[str] = (),
    ) -> None:
        """Score a model as one row of the variants named, more of which may be added to the step."""
        wanted: dict[str, Any] = {"model": model, "stage": stage, "label": label, "variants": list(variants)}
        self.add(f"eval_{stage}", needs, evaluate=wanted | ({"adapter": adapter} if adapter else {}))

    def finish(self, skills: Sequence[Mapping[str, Any]], jobs: int) -> Path:
        """Write the pipeline and return its file."""
        tiny = yaml.safe_load((TINY / "pipeline.yaml").read_text(encoding="utf-8"))
        content = {key: tiny[key] for key in ("warm_host", "environment")}
        content |= {"skills": list(skills), "gates": self.gates}
        content |= {"output": str(self.output), "jobs": jobs, "steps": self.steps}
        # rows with anchors would be hard to read
        return Path(self.write("pipeline", json.loads(json.dumps(content))))


def variant(name: str, seed: int, usual: int) -> str:
    """Return what a way is called with a seed; the usual one is not named."""
    return name if seed == usual else f"{name}, seed {seed}"


def tiny_skills() -> list[dict[str, Any]]:
    """Return the skills of the tiny world's pipeline."""
    content = yaml.safe_load((TINY / "pipeline.yaml").read_text(encoding="utf-8"))
    return list(content["skills"])


def run_pipeline(path: Path) -> None:
    """Run the steps of a pipeline file that are not finished, and write its results."""
    try:
        pipeline = plan.load(path, Registry.load())
        with Progress(Console()) as progress:
            outcomes = runner.run(pipeline, path, progress)
    except SlmError as error:
        sys.exit(f"{type(error).__name__}: {error}")
    results.write_results(pipeline, outcomes)


def read_scores(pipeline: Path) -> dict[str, dict[str, dict[str, Any]]]:
    """Return what has been scored: ``{variant: {row: {skill: score}}}``, rows in order."""
    loaded = plan.load(pipeline, Registry.load())
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for name, rows in plan.variants(loaded).items():
        contents = {row.label or row.stage: runner.scores_path(Path(loaded.output), row.stage) for row in rows}
        scores = {row: records.read_json(path) for row, path in contents.items()}
        found[name] = {row: dict(content) for row, content in scores.items() if content is not None}
    return found


def training_seconds(pipeline: Path, name: str) -> float | None:
    """Return the processor time of a variant's trainings, shared ones included; None where one is not finished."""
    loaded = plan.load(pipeline, Registry.load())
    needed, steps = plan.needs(loaded), {step.name: step for step in loaded.steps}
    rows = [step for step in loaded.steps if step.evaluate is not None and name in step.evaluate.variants]
    trained = dict.fromkeys(need for row in rows for need in needed[row.name] if steps[need].train is not None)
    found = [records.read(Path(loaded.output), step) for step in trained]
    times = [record.cpu_seconds for record in found if record is not None and record.cpu_seconds]
    return sum(times) if trained and len(times) == len(trained) else None
