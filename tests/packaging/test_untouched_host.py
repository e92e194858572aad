"""Without an ``slm:`` block the host trains what it trains where this project is not installed."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest
import yaml

import tiny_models

pytestmark = pytest.mark.host

HOST = "from llamafactory.cli import main; main()"


def make_run(folder: Path) -> None:
    """Write a model, a data set in the host's own format and a YAML without a word about us."""
    tiny_models.make_model(folder / "model")
    (folder / "data").mkdir()
    rows = [{"instruction": f"say {i}", "input": "", "output": f"hello {i * i}"} for i in range(24)]
    (folder / "data/rows.json").write_text(json.dumps(rows), encoding="utf-8")
    (folder / "data/dataset_info.json").write_text('{"rows": {"file_name": "rows.json"}}', encoding="utf-8")
    arguments = {
        "model_name_or_path": "model",
        "template": "llama3",
        "stage": "sft",
        "do_train": True,
        "finetuning_type": "lora",
        "lora_rank": 4,
        "lora_target": "q_proj,v_proj",
        "additional_target": "embed_tokens,lm_head",
        "dataset": "rows",
        "dataset_dir": "data",
        "cutoff_len": 64,
        "output_dir": "adapter",
        "per_device_train_batch_size": 4,
        "max_steps": 4,
        "learning_rate": 1.0e-2,
        "logging_steps": 1,
        "report_to": "none",
        "use_cpu": True,
    }
    (folder / "train.yaml").write_text(yaml.safe_dump(arguments), encoding="utf-8")


def train(python: Path, folder: Path) -> dict[str, bytes]:
    """Train by the stock command line and return every file that decides what the adapter is."""
    kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "SLM_PLUGIN_DISABLE")}
    command = [str(python), "-c", HOST, "train", "train.yaml"]
    # PEFT writes its target modules in the order of a set
    environment = {**kept, "PYTHONHASHSEED": "0"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "slm" not in done.stdout + done.stderr
    return {path.name: path.read_bytes() for path in sorted((folder / "adapter").iterdir()) if path.is_file()}


def test_a_yaml_without_the_block_trains_the_same_bytes_with_and_without_the_plugin(
    make_environment, uv: str, wheel: Path, tmp_path: Path
):
    results = []
    for installed in (False, True):
        python = make_environment()
        if installed:
            subprocess.run([uv, "pip", "install", "-q", "--no-deps", "--python", str(python), str(wheel)], check=True)
        folder = tmp_path / f"installed-{installed}"
        folder.mkdir()
        make_run(folder)
        results.append(train(python, folder))
    without, with_plugin = results
    assert set(without) == set(with_plugin)
    assert len(without["adapter_model.safetensors"]) > 100_000
    decides = [name for name in without if name.endswith((".safetensors", ".json")) and "results" not in name]
    # the state holds how fast the training was; what it learned is compared below
    assert {name for name in decides if without[name] != with_plugin[name]} <= {"trainer_state.json"}
    losses = [
        [entry["loss"] for entry in json.loads(files["trainer_state.json"])["log_history"] if "loss" in entry]
        for files in results
    ]
    assert len(losses[0]) == 4
    assert losses[0] == losses[1]
