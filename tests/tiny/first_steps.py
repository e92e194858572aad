"""Trains the tiny flow for a few steps a stage, and writes what its losses are.

    python tests/tiny/first_steps.py        # writes first_steps.json beside this file

The flow is that of ``examples/tiny/pipeline.yaml``: random base, text, units, ASR, TTS, SQA, merged model. Its own
configurations are run, with fewer steps and no warm-up, in one process with one thread.
"""

from __future__ import annotations

import json
import runpy
import sys
import tempfile
from pathlib import Path
from typing import Any
from unittest import mock

import yaml

STEPS = 3
HERE = Path(__file__).resolve().parent
TINY = HERE.parents[1] / "examples" / "tiny"
GOLDEN = HERE / "first_steps.json"


def configuration(name: str, folder: Path) -> dict[str, Any]:
    """Return a configuration of the example that works in another folder, for a few steps."""
    text = (TINY / name).read_text(encoding="utf-8").replace("runs/demo", str(folder))
    read: dict[str, Any] = yaml.safe_load(text.replace("examples/tiny", str(TINY)))
    if "max_steps" in read:
        read |= {"max_steps": STEPS, "warmup_steps": 0, "logging_steps": 1, "save_strategy": "no", "max_samples": 1000}
    return read


def losses(folder: Path) -> dict[str, list[float]]:
    """Return the losses of the first steps of each stage, and the merged model's loss over some ids.

    Args:
        folder: Empty; gets all that is trained.
    """
    import torch
    from llamafactory.train.tuner import export_model, run_exp
    from transformers import AutoModelForCausalLM

    torch.set_num_threads(1)
    with mock.patch.object(sys, "argv", ["make_base.py", str(folder / "random_base")]):
        runpy.run_path(str(TINY / "make_base.py"), run_name="__main__")
    found: dict[str, list[float]] = {}
    for stage in ("base", "units_base", "asr", "tts", "sqa", "export"):
        read = configuration(f"{stage}.yaml", folder)
        if "export_dir" in read:
            export_model(read)
            continue
        run_exp(read)
        log = (folder / stage / "trainer_log.jsonl").read_text(encoding="utf-8").splitlines()
        found[stage] = [row["loss"] for row in map(json.loads, log) if "loss" in row]
    model = AutoModelForCausalLM.from_pretrained(folder / "model", dtype=torch.float32).eval()
    ids = torch.arange(64)[None]
    with torch.no_grad():
        found["model"] = [float(model(input_ids=ids, labels=ids).loss)]
    return found


if __name__ == "__main__":
    sys.path.insert(0, str(TINY))
    with tempfile.TemporaryDirectory() as made:
        GOLDEN.write_text(json.dumps(losses(Path(made)), indent=1) + "\n", encoding="utf-8")
