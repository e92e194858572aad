"""A small finished run with two variants, written as ``slm run`` writes it, without training anything."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

from slm_plugin.pipeline import plan, records, results
from slm_plugin.pipeline.lineage import write as write_lineage
from slm_plugin.pipeline.records import StepRecord
from slm_plugin.plugins import Registry

MALICIOUS = "</dd><script>alert('owned')</script><img src=x onerror=\"alert(1)\">"
UNITS = "<|3|><|1|><|7|>"


def score(items: list[list[float]], better: str = "higher", **more: Any) -> dict[str, Any]:
    """Return a score as an evaluation leaves it; its value is the sum of numerators over that of denominators."""
    top, bottom = (sum(pair[side] for pair in items) for side in (0, 1))
    content = {"value": top / bottom, "n": int(bottom), "better": better, "standard_error": 0.05, "notes": {}}
    return content | {"items": items, "examples": more.pop("examples", []), **more}


def right(*answers: int) -> list[list[float]]:
    """Return items of a share: 1 for a right answer, 0 for a wrong one."""
    return [[answer, 1] for answer in answers]


def example(prompt: str, expected: str, answer: str) -> dict[str, str]:
    return {"prompt": prompt, "expected": expected, "answer": answer}


# text: base 1.0 -> asr 0.75 -> with replay 0.75, without 0.25; wer: after asr 0.1 -> 0.2 with replay, 0.4 without
SCORES: dict[str, dict[str, Any]] = {
    "base": {"text": score(right(1, 1, 1, 1), examples=[example("what is <b>", "one", MALICIOUS)])},
    "asr": {
        "text": score(right(1, 1, 1, 0)),
        "wer": score([[1, 5], [0, 5]], "lower", notes={"recogniser_wer": 0.03}),
        "spoken": score(right(0, 0)),
    },
    "sqa_replay": {
        "text": score(right(1, 1, 0, 1)),
        "wer": score([[1, 5], [1, 5]], "lower"),
        "spoken": score(right(1, 1), examples=[example(f"heard {UNITS}", "two", f"two{UNITS} three<|2|>")]),
    },
    "sqa_none": {
        "text": score(right(0, 1, 0, 0)),
        "wer": score([[2, 5], [2, 5]], "lower"),
        "spoken": score(right(1, 1)),
    },
}
LABELS = {"base": "base", "asr": "asr", "sqa_replay": "sqa", "sqa_none": "sqa"}
VARIANTS: dict[str, list[str]] = {"base": [], "asr": [], "sqa_replay": ["replay"], "sqa_none": ["none & nothing"]}


def write_run(folder: Path, registry: Registry, stages: tuple[str, ...] = tuple(SCORES), seed: int = 7) -> Path:
    """Write a run of the pipeline beside it, with the given evaluations finished; returns the pipeline file."""
    folder.mkdir(parents=True, exist_ok=True)
    train = folder.parent / "asr.yaml"
    train.write_text(yaml.safe_dump({"output_dir": str(folder / "asr"), "seed": seed, "lr": MALICIOUS}))
    (folder / "data.jsonl").write_text('{"prompt": "a", "expected": "b"}\n')
    skill = {"probe": "text_match", "options": {"data": str(folder / "data.jsonl")}}
    steps: list[dict[str, Any]] = [{"name": "asr", "train": str(train), "processes": 2, "needs": []}]
    for stage, variants in VARIANTS.items():
        row = {"model": "base", "stage": stage, "label": LABELS[stage], "variants": variants}
        steps.append({"name": f"eval_{stage}", "needs": [], "evaluate": row})
    content = {
        "output": str(folder),
        "skills": [{"skill": name, **skill} for name in ("text", "wer", "spoken")],
        "gates": [
            {"stage": "asr", "skill": "wer", "at_most": 0.2},
            {"stage": "sqa_none", "skill": "wer", "at_most": 0.3},
        ],
        "steps": steps,
    }
    file = folder.parent / "pipeline.yaml"
    file.write_text(yaml.safe_dump(content))
    write_training(folder / "asr")
    for stage in stages:
        records.write_json(folder / "scores" / f"{stage}.json", SCORES[stage])
    pipeline = plan.load(file, registry)
    for step in pipeline.steps:
        row = step.evaluate
        if row is not None and row.stage not in stages:
            continue
        outputs = {str(folder / "asr"): "abc"} if row is None else {str(folder / f"scores/{row.stage}.json"): "def"}
        config = yaml.safe_load(train.read_text()) if row is None else None
        known = {"kind": step.kind, "definition": step.model_dump(exclude_defaults=True), "config": config}
        known |= {"seed": seed if config else None, "versions": {"slm_plugin": "1"}, "outputs": outputs}
        records.write(folder, StepRecord(step.name, "f" * 16, 12.5, 3.25, {}, known))
    write_lineage(pipeline)
    if set(stages) == set(SCORES):
        results.write_results(pipeline, [])
        records.write_json(folder / "counts.json", {"asr": {"old/text": 20}})
    return file


def write_training(folder: Path) -> None:
    """Write the logs of a training: its last line is cut off, and a probe was scored on the way."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = [{"current_steps": step, "total_steps": 40, "loss": 4.0 / step, "lr": 1e-3} for step in (10, 20, 30)]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (folder / "trainer_log.jsonl").write_text(text + '{"current_steps": 40, "lo')
    history = [{"step": 10, "loss": 9.0, "grad_norm": 1.0}, {"step": 20, "probe_text": 0.5, "eval_runtime": 3.0}]
    records.write_json(folder / "trainer_state.json", {"log_history": history})
