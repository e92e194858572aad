"""Tiny data sets and host configurations shared by the host tests."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

UNITS = 50
WORDS = ("the", "a", "cat", "dog", "hello", "world", "red", "blue", "one", "two")
DATA_SETS = {
    "asr": ("libri.jsonl", "slm_asr"),
    "tts": ("libri.jsonl", "slm_tts"),
    "sqa": ("sqa.jsonl", "slm_sqa"),
    "llm": ("llm.jsonl", "slm_llm"),
    "empty": ("empty.jsonl", "slm_llm"),
}
PLAIN = "plain"
"""Data set in a form of LLaMA-Factory's own, for runs without a block."""


def reference_row(draw: random.Random) -> dict[str, Any]:
    """Make a row with the columns of the published data sets."""

    def units(n: int) -> list[int]:
        return [draw.randrange(UNITS) for _ in range(n)]

    words = draw.choices(WORDS, k=draw.randint(2, 5))
    spoken = " ".join(word + "".join(f"<|{unit}|>" for unit in units(3)) for word in words)
    return {
        "instruction": "Please repeat the following words: ",
        "discrete_unit": units(12),
        "transcription": " ".join(words),
        "interleaf": spoken,
        "input_unit": units(12),
        "input_pseudo": "hello world",
        "output_pseudo": "the red cat",
        "output_7306_interleaf": spoken,
    }


def write_data(folder: Path, n_libri: int = 40, n_sqa: int = 20, n_llm: int = 10) -> Path:
    """Write the data sets and their ``dataset_info.json``."""
    folder.mkdir(parents=True, exist_ok=True)
    draw = random.Random(0)
    files = {
        "libri.jsonl": [reference_row(draw) for _ in range(n_libri)],
        "sqa.jsonl": [reference_row(draw) for _ in range(n_sqa)],
        "llm.jsonl": [{"input": f"hello {number}", "output": "the blue dog"} for number in range(n_llm)],
        "empty.jsonl": [{"input": " ", "output": ""} for _ in range(3)],
        "plain.jsonl": [{"instruction": "say", "input": "hello", "output": "the dog"} for _ in range(n_llm)],
    }
    for name, found in files.items():
        (folder / name).write_text("".join(json.dumps(row) + "\n" for row in found), encoding="utf-8")
    info = {name: {"file_name": file, "formatting": form} for name, (file, form) in DATA_SETS.items()}
    info[PLAIN] = {"file_name": "plain.jsonl"}
    (folder / "dataset_info.json").write_text(json.dumps(info), encoding="utf-8")
    return folder


def train_config(model: Path, data: Path, output: Path, stage: str = "asr", **changes: Any) -> dict[str, Any]:
    """Return a host train configuration for a few steps; ``slm=None`` leaves the block out."""
    config: dict[str, Any] = {
        "model_name_or_path": str(model),
        "stage": "sft",
        "do_train": True,
        "finetuning_type": "lora",
        "lora_rank": 4,
        "lora_target": "q_proj,k_proj,v_proj",
        "dataset": stage,
        "dataset_dir": str(data),
        "template": "llama3",
        "cutoff_len": 256,
        "output_dir": str(output),
        "overwrite_output_dir": True,
        "per_device_train_batch_size": 4,
        "max_steps": 3,
        "learning_rate": 1e-3,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "use_cpu": True,
        "slm": {"stage": stage, "units": {"count": UNITS}},
    }
    config.update(changes)
    return {key: value for key, value in config.items() if value is not None}


def export_config(model: Path, output: Path, adapter: Path | None = None, **changes: Any) -> dict[str, Any]:
    """Return a host export configuration."""
    config: dict[str, Any] = {
        "model_name_or_path": str(model),
        "template": "llama3",
        "export_dir": str(output),
        "export_device": "cpu",
        "infer_dtype": "float32",
        "slm": {"units": {"count": UNITS}},
    }
    if adapter is not None:
        config |= {"adapter_name_or_path": str(adapter), "finetuning_type": "lora"}
    config.update(changes)
    return {key: value for key, value in config.items() if value is not None}


def under_zero(zero: int, config: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Return a train configuration for several processes: plain ones for 0, else under that stage of ZeRO."""
    if not zero:
        return config
    pytest.importorskip("deepspeed", reason="pip install 'slm-plugin[deepspeed]'")
    settings = {
        "train_batch_size": "auto",
        "train_micro_batch_size_per_gpu": "auto",
        "gradient_accumulation_steps": "auto",
        "gradient_clipping": "auto",
        "zero_allow_untested_optimizer": True,
        "zero_optimization": {"stage": zero, "stage3_gather_16bit_weights_on_model_save": True},
    }
    (folder / "zero.json").write_text(json.dumps(settings), encoding="utf-8")
    # DeepSpeed refuses the CPU where the host is told to use it by name
    return config | {"use_cpu": False, "deepspeed": str(folder / "zero.json")}


def epochs(n: int, **changes: Any) -> dict[str, Any]:
    """Return changes of a train configuration: whole epochs in place of steps."""
    return {"max_steps": -1, "num_train_epochs": float(n), **changes}


def weights(folder: Path) -> dict[str, torch.Tensor]:
    """Return the weights of a saved adapter."""
    return load_file(folder / "adapter_model.safetensors")


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    """Tell whether two adapters are equal to the bit."""
    return all(torch.equal(one[name], other[name]) for name in one)
