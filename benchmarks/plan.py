"""Claim: memory and time that ``slm doctor --plan`` calculates for a training on a CPU are near to what it takes.

Trains random Llamas of 5 to 150 M parameters with LLaMA-Factory, a few steps each: LoRA alone, with the units' rows
and with whole embeddings, and full training, in float32 and with ``bf16: true``. Each run is a process of its own.
Memory is the largest resident memory of that process (``VmHWM``). A step is the processor time
of one thread, the median of all but the first. Prints both beside the estimate, and
the largest error. With ``--write`` the runs replace ``slm_plugin/doctor/calibration.json``, by which the plan states
its error.

    python benchmarks/plan.py [--write] [--only NAME]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "tests")]
STEPS = 3
UNITS = 500


@dataclass(frozen=True)
class Case:
    """One training: a shape, and what of the YAML decides memory and time."""

    name: str
    layers: int
    hidden: int
    inner: int
    rows: int
    tied: bool
    finetuning: str
    train_units: str
    bf16: bool
    batch: int
    cutoff: int
    checkpointing: bool = True
    rank: int = 16


CASES = (
    Case("5M lora rows fp32", 4, 256, 688, 4096, False, "lora", "rows", False, 4, 256),
    Case("5M full fp32", 4, 256, 688, 4096, False, "full", "modules", False, 4, 256),
    Case("33M lora rows fp32", 8, 512, 1376, 8192, False, "lora", "rows", False, 4, 512),
    Case("33M lora modules fp32", 8, 512, 1376, 8192, False, "lora", "modules", False, 4, 512),
    Case("33M lora modules bf16", 8, 512, 1376, 8192, False, "lora", "modules", True, 4, 512),
    Case("33M full fp32", 8, 512, 1376, 8192, False, "full", "modules", False, 4, 512),
    Case("33M full bf16", 8, 512, 1376, 8192, False, "full", "modules", True, 4, 512),
    Case("33M lora rows fp32, kept", 8, 512, 1376, 8192, False, "lora", "rows", False, 4, 512, False),
    Case("33M lora rows bf16, kept", 8, 512, 1376, 8192, False, "lora", "rows", True, 4, 512, False),
    Case("110M lora rows fp32", 12, 768, 2048, 32_768, True, "lora", "rows", False, 2, 256),
    Case("110M lora modules bf16", 12, 768, 2048, 32_768, True, "lora", "modules", True, 2, 256),
    Case("110M full fp32", 12, 768, 2048, 32_768, True, "full", "modules", False, 2, 256),
    Case("135M lora rows bf16", 12, 768, 2048, 32_768, False, "lora", "rows", True, 2, 256),
    Case("135M lora modules fp32", 12, 768, 2048, 32_768, False, "lora", "modules", False, 1, 256),
)


def prepare(case: Case, folder: Path) -> dict[str, Any]:
    """Write model, data and the train configuration of a case."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from tiny_models import make_tokenizer

    tokenizer = make_tokenizer()
    config = LlamaConfig(
        vocab_size=case.rows,
        hidden_size=case.hidden,
        intermediate_size=case.inner,
        num_hidden_layers=case.layers,
        num_attention_heads=case.hidden // 64,
        num_key_value_heads=case.hidden // 128,
        max_position_embeddings=8192,
        tie_word_embeddings=case.tied,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    torch.manual_seed(0)
    model = LlamaForCausalLM(config)
    model.to(torch.bfloat16 if case.bf16 else torch.float32).save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    # the prompt of the form takes some 40 tokens
    draw = torch.randint(0, UNITS, (case.batch * STEPS * 2, case.cutoff - 48)).tolist()
    (folder / "data").mkdir()
    with (folder / "data/rows.jsonl").open("w", encoding="utf-8") as file:
        for units in draw:
            file.write(json.dumps({"discrete_unit": units, "text": "the cat sat on the mat"}) + "\n")
    entry = {"rows": {"file_name": "rows.jsonl", "formatting": "slm_asr"}}
    (folder / "data/dataset_info.json").write_text(json.dumps(entry), encoding="utf-8")
    train = {
        "stage": "sft",
        "do_train": True,
        "model_name_or_path": str(folder / "model"),
        "template": "llama3",
        "finetuning_type": case.finetuning,
        "dataset": "rows",
        "dataset_dir": str(folder / "data"),
        "output_dir": str(folder / "out"),
        "cutoff_len": case.cutoff,
        "per_device_train_batch_size": case.batch,
        "gradient_accumulation_steps": 1,
        "max_steps": STEPS,
        "learning_rate": 1e-4,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "bf16": case.bf16,
        "use_cpu": True,
        "preprocessing_num_workers": 1,
        "disable_gradient_checkpointing": not case.checkpointing,
        "slm": {"stage": "asr", "units": {"count": UNITS}},
    }
    if case.finetuning == "lora":
        train |= {"lora_rank": case.rank, "lora_target": "all"}
        train["slm"]["train_units"] = case.train_units
    return train


def train_in_child(config_file: Path) -> dict[str, float]:
    """Train in a new process; return bytes and seconds.

    A fork of a process that has imported the host would be faster, but it does not count the pages of libraries.
    """
    command = [sys.executable, __file__, "--train", str(config_file)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"the training failed; its output ends:\n{done.stderr[-3000:]}")
    return dict(json.loads(done.stdout.splitlines()[-1]))


def train(config_file: Path) -> dict[str, float]:
    """Train in this process; return bytes and seconds."""
    import yaml

    # what the command line of the host imports before it trains
    from llamafactory import launcher  # noqa: F401
    from llamafactory.train.tuner import run_exp
    from transformers import TrainerCallback

    moments: list[float] = []

    class Clock(TrainerCallback):
        """Notes when steps begin and end."""

        def on_step_begin(self, *_: Any, **__: Any) -> None:
            moments.append(time.process_time())

        def on_step_end(self, *_: Any, **more: Any) -> None:
            moments.append(time.process_time())

    run_exp(yaml.safe_load(config_file.read_text(encoding="utf-8")), callbacks=[Clock()])
    steps = [end - begin for begin, end in zip(moments[::2], moments[1::2], strict=True)]
    return {
        "memory_bytes": largest_resident(),
        "step_seconds": statistics.median(steps[1:]),
    }


def largest_resident() -> float:
    """Return the largest resident memory of this process in bytes.

    ``ru_maxrss`` would not do: a process inherits it from the one that started it.
    """
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(1024.0 * int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


def main() -> int:
    """Measure, print, and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="replace slm_plugin/doctor/calibration.json")
    parser.add_argument("--only", help="run the cases whose name holds this text")
    parser.add_argument("--train", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    # one thread, so that processor time is the time of an idle machine whatever else runs on this one
    os.environ["OMP_NUM_THREADS"] = "1"

    import torch
    import yaml

    torch.set_num_threads(1)
    if given.train:
        print(json.dumps(train(given.train)))
        return 0
    from slm_plugin.doctor.calibration import Calibration, Run
    from slm_plugin.doctor.processor import measure
    from slm_plugin.doctor.recipe import read_recipe
    from slm_plugin.plugins import Registry

    registry, runs = Registry.load(), []
    speeds = {bf16: measure(bf16) for bf16 in (False, True)}
    for speed in speeds.values():
        print(f"one thread, {speed.dtype}: matrix products {speed.rate / 1e9:.0f} G operations a second,", end=" ")
        print(f"additions {speed.value_seconds * 1e9:.2f} ns a value")
    for case in CASES:
        if given.only and given.only not in case.name:
            continue
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            config = prepare(case, folder)
            (folder / "train.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
            found = train_in_child(folder / "train.yaml")
            recipe = read_recipe(folder / "train.yaml", registry, cpu=True)
        run = Run(case.name, recipe.training, speeds[case.bf16], found["memory_bytes"], found["step_seconds"])
        runs.append(run)
        print(
            f"{case.name:26} memory {run.memory / 1e9:5.2f} GB (estimate {run.memory_error():+4.0%}),"
            f" step {run.step_seconds:6.2f} s (estimate {run.time_error():+4.0%})",
            flush=True,
        )
    found = Calibration(datetime.now(UTC).date().isoformat(), tuple(runs))
    print(f"{len(runs)} runs: memory within {found.memory_error:.0%}, time within {found.time_error:.0%}")
    if given.write:
        content = [
            {
                "name": run.name,
                "training": asdict(run.training),
                "processor": asdict(run.processor),
                "memory_bytes": run.memory,
                "step_seconds": run.step_seconds,
            }
            for run in runs
        ]
        path = ROOT / "slm_plugin/doctor/calibration.json"
        path.write_text(json.dumps({"date": found.date, "runs": content}, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
