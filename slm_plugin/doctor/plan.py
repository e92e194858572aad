"""``slm doctor --plan``: memory, disk and time of a recipe, in words."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from slm_plugin.doctor.calibration import calibration
from slm_plugin.doctor.estimate import UTILISATION, Training
from slm_plugin.doctor.gpus import Gpu
from slm_plugin.doctor.processor import Processor, measure
from slm_plugin.doctor.recipe import Recipe, read_recipe, read_yaml
from slm_plugin.doctor.shapes import find_shapes
from slm_plugin.errors import ConfigError, Problem
from slm_plugin.plugins import Registry

GB = 1e9


@dataclass(frozen=True)
class Wishes:
    """What the command line says besides the file.

    Attributes:
        model: The model that a recipe's model will be made from.
        processes: GPUs that train together; a pipeline's step may say so itself.
        gpu: What they are; None where it is not known.
        tokens: Tokens of one epoch.
        cpu: Whether it trains on this machine's CPU.
    """

    model: str | None = None
    processes: int = 1
    gpu: Gpu | None = None
    tokens: float | None = None
    cpu: bool = False


def plan(path: Path, registry: Registry, wishes: Wishes) -> Iterator[str]:
    """Yield lines about a train, export, pipeline or prepare YAML.

    Raises:
        SlmError: The file or something that it names is wrong.
    """
    raw = read_yaml(path)
    if "steps" in raw:
        yield from _pipeline(path, raw, registry, wishes)
    elif "corpus" in raw:
        from slm_plugin.doctor.sample import plan_corpus

        yield from plan_corpus(path, registry)
    elif "export_dir" in raw:
        yield f"{path.name}: {_export_bytes(path, raw, registry, wishes) / GB:.1f} GB on disk for {raw['export_dir']}"
    elif "model_name_or_path" in raw:
        recipe = read_recipe(path, registry, wishes.model, wishes.processes, wishes.tokens, wishes.cpu)
        yield from _training(recipe, wishes.gpu)
        yield from _space(recipe.disk)
    else:
        keys = "model_name_or_path, export_dir, steps, corpus"
        raise ConfigError(
            [Problem(path.name, f"is no train, export, pipeline or prepare file: it has none of {keys}.")]
        )


def hours(recipe: Recipe, gpu: Gpu | None) -> float | None:
    """Return how long a training takes; None if the tokens or the GPU are not known.

    On GPUs ``tokens x operations / (GPUs x peak x utilisation)``, on a CPU by :mod:`slm_plugin.doctor.processor`.
    """
    tokens = recipe.tokens.total
    if tokens is None:
        return None
    if recipe.training.cpu:
        return _processor(recipe.training.autocast).seconds(recipe.training, tokens) / 3600
    if gpu is None:
        return None
    speed = recipe.training.processes * gpu.tera_operations * 1e12 * UTILISATION
    return tokens * recipe.needs.operations / speed / 3600


@cache
def _processor(bf16: bool) -> Processor:
    return measure(bf16)


def _training(recipe: Recipe, gpu: Gpu | None) -> Iterator[str]:
    found, training = recipe.needs, recipe.training
    yield f"{recipe.name}: {_basis(training)}"
    yield f"  weights    {found.frozen / GB:.2f} G that stay, {found.trained / GB:.2f} G that train"
    parts = f"process {found.process / GB:.1f}, " if found.process else ""
    parts += (
        f"weights {found.weights / GB:.1f}, logits {found.logits / GB:.1f}, activations {found.activations / GB:.1f}"
    )
    more = f", gathered {found.gathered / GB:.1f}" if found.gathered else ""
    more += f", L2 anchor {found.anchor / GB:.1f}" if found.anchor else ""
    name, limit = ("this machine", machine_memory()) if training.cpu else ("", None)
    if gpu and not training.cpu:
        name, limit = gpu.name, gpu.memory_gb * GB
    of = f" of {limit / GB:.0f} GB of {name}" if limit else " GB"
    spread = f" on each of {training.processes}" if training.processes > 1 else ""
    yield f"  memory     {found.memory / GB:.1f}{of}{spread}: {parts}{more}"
    if limit and found.memory > limit:
        yield f"  too much:  {_relief(recipe)}"
    checkpoints = f"{recipe.kept} checkpoints of {found.checkpoint / GB:.1f}"
    yield f"  disk       {recipe.disk / GB:.1f} GB: {checkpoints}, and the result"
    yield _time(recipe, gpu)


def _basis(training: Training) -> str:
    """Say what the numbers of a training are worth."""
    if not training.cpu:
        return "calculated, not measured (a few GB for fragmentation and the CUDA context come on top)"
    known = calibration()
    return (
        f"calculated for this CPU; on {len(known.runs)} measured runs ({known.date}) such estimates were within"
        f" {known.memory_error:.0%} of the memory and {known.time_error:.0%} of the time"
    )


def _time(recipe: Recipe, gpu: Gpu | None) -> str:
    total, training = recipe.tokens.total, recipe.training
    took = hours(recipe, gpu)
    if total is None:
        return "  time       not known: give the tokens of one epoch as --tokens"
    tokens = f"{total:,.0f} tokens ({recipe.tokens.source})"
    if took is None:
        return f"  time       {tokens}; give the GPU as --gpu"
    if training.cpu:
        speed = _processor(training.autocast)
        how = f"{speed.rate / 1e9:,.0f} G operations a second in {speed.dtype}, measured, {speed.threads} threads"
    else:
        assert gpu is not None
        how = f"{UTILISATION:.0%} (assumed) of {training.processes} x {gpu.tera_operations:g} TFLOPS"
    return f"  time       {_duration(took)} for {tokens}, at {how}"


def _duration(hours_: float) -> str:
    if hours_ >= 1:
        return f"{hours_:.1f} hours"
    return f"{60 * hours_:.1f} minutes" if hours_ >= 1 / 60 else f"{3600 * hours_:.0f} seconds"


def machine_memory() -> float | None:
    """Return the memory of this machine in bytes; None if it is not known."""
    if not hasattr(os, "sysconf") or "SC_PHYS_PAGES" not in os.sysconf_names:
        return None
    return float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))


def _relief(recipe: Recipe) -> str:
    training, found = recipe.training, recipe.needs
    if found.weights > found.logits + found.activations:
        ways = ["slm.train_units: rows"] if training.embeddings == "modules" and not training.shapes.tied else []
        ways += [f"deepspeed with ZeRO-{training.zero + 1 if training.zero else 2} on several GPUs"] * (
            training.zero < 3
        )
        return " or ".join(ways) or "more GPUs"
    if training.batch > 1:
        return f"per_device_train_batch_size: {training.batch // 2}, gradient_accumulation_steps doubled"
    return "a smaller cutoff_len"


def _pipeline(path: Path, raw: Mapping[str, Any], registry: Registry, wishes: Wishes) -> Iterator[str]:
    from slm_plugin.pipeline import plan as pipelines

    loaded = pipelines.load(path, registry)
    memory = disk = 0.0
    time: float | None = 0.0
    for step in loaded.steps:
        if step.train is not None:
            processes = step.processes if step.processes > 1 else wishes.processes
            recipe = read_recipe(Path(step.train), registry, wishes.model, processes, wishes.tokens, wishes.cpu)
            yield from _training(recipe, wishes.gpu)
            memory, disk = max(memory, recipe.needs.memory), disk + recipe.disk
            took = hours(recipe, wishes.gpu)
            time = None if time is None or took is None else time + took
        elif step.export is not None:
            size = _export_bytes(Path(step.export), read_yaml(Path(step.export)), registry, wishes)
            yield f"{Path(step.export).name}: {size / GB:.1f} GB on disk"
            disk += size
    took_all = "not known" if time is None else f"{time:.1f} hours of training, evaluation not counted"
    yield f"{path.name}: memory {memory / GB:.1f} GB at most, disk {disk / GB:.1f} GB, time {took_all}"
    yield from _space(disk)


def _export_bytes(path: Path, raw: Mapping[str, Any], registry: Registry, wishes: Wishes) -> float:
    from slm_plugin.config import parse_block

    config = parse_block(raw["slm"], registry, path.name) if raw.get("slm") else None
    model = wishes.model or str(raw.get("model_name_or_path") or "")
    shapes = find_shapes(model, path, config.unit_count if config else 0)
    h, kv = shapes.hidden, shapes.key_width
    layer = 2 * h * h + 2 * h * kv + 3 * h * shapes.inner + 2 * h
    width = 4.0 if raw.get("infer_dtype") == "float32" else 2.0
    return width * (shapes.layers * layer + shapes.rows * h * (1 if shapes.tied else 2) + h)


def _space(wanted: float) -> Iterator[str]:
    free = shutil.disk_usage(Path.cwd()).free
    if wanted > free:
        yield f"the disk here has {free / GB:.1f} GB free: {(wanted - free) / GB:.1f} GB too few"
