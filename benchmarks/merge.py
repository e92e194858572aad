"""Claim: our merges are at least 1.5 times (linear) and 4 times (TIES) as fast as mergekit's, in half the memory.

Random models with one parent are written once: a base and three members of about 250 million bfloat16
parameters each, as Llamas. Then each engine merges them in a child process of its own, with the same method
and options and its own defaults for threads. Times are those of the merge, without imports; memory is the largest
resident set of the whole process (``VmHWM``), mapped files included. Prints medians and ratios;
exits with 1 where one misses its claim. mergekit must be installed.

    python benchmarks/merge.py [--size 250] [--shards 1] [--repeats 3] [--methods linear,ties,dare_ties] [--folder DIR]
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
from pathlib import Path

FACTOR = {"linear": 1.5, "ties": 4.0}
"""How many times as fast ours must be."""

MEMORY_SHARE = 0.5
WEIGHTS = (0.9, 0.06, 0.04)
DENSITY = 0.9
LAYERS = 12
VOCABULARY = 32_000


def width_for(millions: float) -> int:
    """Return the width at which a Llama of :data:`LAYERS` layers has about that many million parameters."""
    width = 64
    while 2 * VOCABULARY * width + LAYERS * (4 * width**2 + 9 * width**2) < millions * 1e6:
        width += 64
    return width


def write_models(folder: Path, millions: float, n_shards: int) -> int:
    """Write ``base``, ``m0``, ``m1`` and ``m2``; return how many parameters each has."""
    import torch
    from safetensors.torch import save_file

    width = width_for(millions)
    inner = width * 3
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": width,
        "intermediate_size": inner,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": width // 64,
        "num_key_value_heads": width // 64,
        "vocab_size": VOCABULARY,
        "tie_word_embeddings": False,
        "dtype": "bfloat16",
    }
    shapes = {"model.embed_tokens.weight": (VOCABULARY, width), "lm_head.weight": (VOCABULARY, width)}
    shapes["model.norm.weight"] = (width,)
    for layer in range(LAYERS):
        name = f"model.layers.{layer}."
        shapes |= {f"{name}self_attn.{part}_proj.weight": (width, width) for part in "qkvo"}
        shapes |= {f"{name}mlp.{part}_proj.weight": (inner, width) for part in ("gate", "up")}
        shapes[f"{name}mlp.down_proj.weight"] = (width, inner)
        shapes |= {f"{name}{part}_layernorm.weight": (width,) for part in ("input", "post_attention")}
    for number, model in enumerate(("base", "m0", "m1", "m2")):
        (folder / model).mkdir(parents=True)
        (folder / model / "config.json").write_text(json.dumps(config))
        tensors = {}
        for position, (name, shape) in enumerate(shapes.items()):
            parent = torch.randn(shape, generator=torch.Generator().manual_seed(position)) * 0.02
            if number:
                draw = torch.Generator().manual_seed(1000 * number + position)
                parent += torch.randn(shape, generator=draw) * 0.002
            tensors[name] = parent.bfloat16()
        names = list(tensors)
        parts = [names[start::n_shards] for start in range(n_shards)]
        index = {}
        for part_number, part in enumerate(parts, start=1):
            file = "model.safetensors" if n_shards == 1 else f"model-{part_number:05d}-of-{n_shards:05d}.safetensors"
            save_file({name: tensors[name] for name in part}, folder / model / file, metadata={"format": "pt"})
            index |= dict.fromkeys(part, file)
        if n_shards > 1:
            content = {"metadata": {}, "weight_map": index}
            (folder / model / "model.safetensors.index.json").write_text(json.dumps(content))
    return sum(tensor.numel() for tensor in tensors.values())


def configuration(folder: Path, method: str) -> dict:
    models = [{"model": str(folder / f"m{n}"), "weight": weight} for n, weight in enumerate(WEIGHTS)]
    if method != "linear":
        models = [{**model, "density": DENSITY} for model in models]
        return {"method": method, "base_model": str(folder / "base"), "models": models}
    # the reference's linear recipe counts the base
    return {"method": method, "models": [{"model": str(folder / "base"), "weight": 0.02}, *models]}


def run_ours(folder: Path, method: str, result: Path, n_shards: int) -> float:
    from slm_plugin.merge.plan import parse_merge
    from slm_plugin.merge.run import merge
    from slm_plugin.plugins import Registry

    plan = parse_merge(configuration(folder, method), Registry.load(entry_points=False), "merge")
    started = time.perf_counter()
    merge(plan, result, None if n_shards == 1 else shard_bytes(folder, n_shards))
    return time.perf_counter() - started


def run_mergekit(folder: Path, method: str, result: Path, n_shards: int) -> float:
    from mergekit.config import MergeConfiguration
    from mergekit.merge import MergeOptions, run_merge

    block = configuration(folder, method)
    models = [
        {"model": model.pop("model"), "parameters": model} for model in (dict(entry) for entry in block["models"])
    ]
    content = {"merge_method": method, "models": models, "dtype": "bfloat16"}
    if "base_model" in block:
        content["base_model"] = block["base_model"]
    size = {} if n_shards == 1 else {"out_shard_size": shard_bytes(folder, n_shards)}
    options = MergeOptions(write_model_card=False, copy_tokenizer=False, quiet=True, random_seed=1126, **size)
    started = time.perf_counter()
    run_merge(MergeConfiguration.model_validate(content), str(result), options)
    return time.perf_counter() - started


def shard_bytes(folder: Path, n_shards: int) -> int:
    return sum(path.stat().st_size for path in (folder / "base").glob("*.safetensors")) // n_shards


def peak_mb() -> float:
    """Return the largest resident set of this process in megabytes."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def child(engine: str, folder: Path, method: str, result: Path, n_shards: int) -> None:
    seconds = (run_ours if engine == "ours" else run_mergekit)(folder, method, result, n_shards)
    print(json.dumps({"seconds": seconds, "peak_mb": peak_mb()}))


def measure(engine: str, folder: Path, method: str, n_shards: int) -> dict[str, float]:
    # what was written before must not go to the disk while this is timed
    os.sync()
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        command = [sys.executable, __file__, "--child", engine, "--folder", str(folder), "--methods", method]
        command += ["--result", f"{scratch}/out", "--shards", str(n_shards)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        return json.loads(done.stdout.splitlines()[-1])


def main() -> int:
    """Measure, print, and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=float, default=250, help="million parameters of each model")
    parser.add_argument("--shards", type=int, default=1, help="files that each model is spread over")
    parser.add_argument("--repeats", type=int, default=3, help="runs of each engine, in turn; medians count")
    parser.add_argument("--methods", default="linear,ties,dare_ties")
    parser.add_argument("--folder", type=Path, help="where the models are made; a temporary folder unless set")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--result", type=Path, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.child:
        child(chosen.child, chosen.folder, chosen.methods, chosen.result, chosen.shards)
        return 0
    missed = False
    with tempfile.TemporaryDirectory(dir=chosen.folder) as temporary:
        folder = Path(temporary)
        n = write_models(folder, chosen.size, chosen.shards)
        print(f"4 models of {n / 1e6:.0f} M bfloat16 parameters, {chosen.shards} file(s) each, {os.cpu_count()} cores")
        print(f"{'method':10} {'engine':9} {'seconds':>8} {'peak MB':>8}")
        for method in chosen.methods.split(","):
            runs: dict[str, list[dict[str, float]]] = {"ours": [], "mergekit": []}
            for _ in range(chosen.repeats):
                for engine, measured in runs.items():
                    measured.append(measure(engine, folder, method, chosen.shards))
            found = {}
            for engine, measured in runs.items():
                keys = ("seconds", "peak_mb")
                found[engine] = {key: statistics.median(run[key] for run in measured) for key in keys}
                print(f"{method:10} {engine:9} {found[engine]['seconds']:8.2f} {found[engine]['peak_mb']:8.0f}")
            faster = found["mergekit"]["seconds"] / found["ours"]["seconds"]
            smaller = found["ours"]["peak_mb"] / found["mergekit"]["peak_mb"]
            goal = FACTOR.get(method)
            claim = f" (claim {goal:g}x, {MEMORY_SHARE:.0%})" if goal else ""
            print(f"{method:10} {faster:.1f}x as fast, {smaller:.0%} of the memory{claim}", flush=True)
            missed |= goal is not None and (faster < goal or smaller > MEMORY_SHARE)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
