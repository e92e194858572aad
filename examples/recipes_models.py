"""The models that there are recipes for, and what a recipe of their size needs, calculated."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from slm_plugin.doctor.shapes import KNOWN, Shapes

UNITS = 10_000
RANK = 64
CUTOFF = 1200
EPOCHS = {"asr": 5, "tts": 5, "sqa": 1}


@dataclass(frozen=True)
class Model(Shapes):
    """What differs between models, beside their shapes; of a vision model, those of the text decoder that is trained.

    Attributes:
        title: Its name in prose.
        hub: Its name on the hub.
        template: The host's name of its chat form.
        batch: Rows per step and GPU.
        accumulation: Steps per update.
        gpus: GPUs of the recipe.
        gpu: What they are, for the estimates.
        gpu_gb: Memory of each.
        peak: Operations per second of each in bf16, in 10^12.
        deepspeed: Whether the training files name a DeepSpeed configuration; the folder has them where not None.
        extract: Whether the text decoder is taken out of a vision-language model first.
    """

    title: str
    hub: str
    template: str
    batch: int
    accumulation: int
    gpus: int
    gpu: str
    gpu_gb: int
    peak: int
    deepspeed: bool | None = None
    extract: bool = False


def _model(title: str, hub: str, template: str, **recipe: Any) -> Model:
    return Model(**vars(KNOWN[hub]), title=title, hub=hub, template=template, **recipe)


MODELS = {
    "llama3_2_1b": _model(
        "Llama 3.2 1B Instruct", "meta-llama/Llama-3.2-1B-Instruct", "llama3",
        batch=2, accumulation=3, gpus=1, gpu="RTX 4090", gpu_gb=24, peak=165,
    ),
    "qwen2_5_1_5b": _model(
        "Qwen2.5 1.5B Instruct", "Qwen/Qwen2.5-1.5B-Instruct", "qwen",
        batch=2, accumulation=3, gpus=1, gpu="RTX 4090", gpu_gb=24, peak=165,
    ),
    "llama3_1_8b": _model(
        "Llama 3.1 8B Instruct", "meta-llama/Llama-3.1-8B-Instruct", "llama3",
        batch=1, accumulation=1, gpus=8, gpu="A100", gpu_gb=80, peak=312, deepspeed=True,
    ),
    "llama3_2_11b_vision": _model(
        "Llama 3.2 11B Vision Instruct", "meta-llama/Llama-3.2-11B-Vision-Instruct", "llama3",
        batch=1, accumulation=6, gpus=1, gpu="A100", gpu_gb=80, peak=312, deepspeed=False, extract=True,
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Estimate:
    """What a recipe needs, calculated and not measured.

    Attributes:
        n_rows: Rows of embedding and head with the units, padded to a multiple of 64.
        n_frozen: Weights of the units base, none of which train.
        n_trained: LoRA weights, and the copies of embedding and head that train in full.
        n_multiplied: Weights that every token is multiplied with: all layers and the head.
        logits: Bytes of logits and their gradients.
        activations: Bytes of activations with checkpointing.
        gathered: Bytes of the largest matrix, which ZeRO-3 gathers.
    """

    n_rows: int
    n_frozen: int
    n_trained: int
    n_multiplied: int
    logits: int
    activations: int
    gathered: int


def estimate(model: Model) -> Estimate:
    """Calculate the sizes of a recipe."""
    h, kv = model.hidden, model.key_width
    layer = 2 * h * h + 2 * h * kv + 3 * h * model.inner + 2 * h
    n_rows = model.with_units(UNITS).rows
    embeddings = n_rows * h * (1 if model.tied else 2)
    lora = model.layers * RANK * ((h + h) + 2 * (h + kv))
    tokens = model.batch * CUTOFF
    return Estimate(
        n_rows=n_rows,
        n_frozen=model.layers * layer + embeddings + h,
        n_trained=embeddings + lora,
        n_multiplied=model.layers * layer + n_rows * h,
        logits=12 * tokens * n_rows,
        activations=tokens * h * (4 * model.layers + 34),
        gathered=2 * n_rows * h,
    )


def plain_weights(found: Estimate) -> int:
    """Return the bytes of weights, gradients and optimizer on one GPU.

    The base is bf16. Of a trained weight there are the weight, its gradient and two moments in fp32, and autocast's
    copy in bf16.
    """
    return 2 * found.n_frozen + 18 * found.n_trained


def memory(found: Estimate, zero: int, gpus: int) -> float:
    """Return the memory of each GPU in bytes: plain (0), ZeRO-2 or ZeRO-3."""
    frozen, trained = found.n_frozen, found.n_trained
    weights = {
        0: plain_weights(found),
        2: 2 * frozen + (2 + 14 / gpus) * trained,
        3: (2 * frozen + 16 * trained) / gpus + found.gathered,
    }[zero]
    return weights + found.logits + found.activations
