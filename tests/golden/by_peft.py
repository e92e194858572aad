"""Weights of a linear layer with an adapter by PEFT, in float32."""

from __future__ import annotations

from typing import Any

import torch

from golden.entry import Entry

WEIGHT = [[1.0, -2.0, 0.5], [0.25, 3.0, -1.0]]
UP = [[1.0, -0.5], [0.0, 2.0]]
DOWN = [[0.5, 1.0, -1.5], [2.0, 0.25, 1.0]]
MAGNITUDE = [2.5, 3.0]


def folded(
    weight: list[list[float]],
    up: list[list[float]],
    down: list[list[float]],
    config: dict[str, Any],
    factor: float = 1.0,
    magnitude: list[float] | None = None,
) -> list[list[float]]:
    """Return the weight that PEFT merges into the layer.

    Args:
        weight: ``(O, I)``, the base.
        up: ``(O, R)``, PEFT's ``lora_B``.
        down: ``(R, I)``, PEFT's ``lora_A``.
        config: Of the adapter.
        factor: What the adapter's own scale is multiplied by.
        magnitude: DoRA's, ``(O,)``.
    """
    from peft import LoraConfig, get_peft_model

    layer = torch.nn.Linear(len(down[0]), len(up), bias=False)
    layer.weight.data = torch.tensor(weight)
    model = get_peft_model(torch.nn.Sequential(layer), LoraConfig(target_modules=["0"], **config))
    adapted = model.base_model.model[0]
    adapted.lora_A["default"].weight.data = torch.tensor(down)
    adapted.lora_B["default"].weight.data = torch.tensor(up)
    if magnitude is not None:
        adapted.lora_magnitude_vector["default"].weight.data = torch.tensor(magnitude)
    adapted.scale_layer(factor)
    model.merge_adapter()
    return adapted.base_layer.weight.tolist()


_LORA = {"weight": WEIGHT, "up": UP, "down": DOWN}
_DORA = {**_LORA, "magnitude": MAGNITUDE}
ENTRIES = (
    Entry(
        "LoRA at a factor",
        "arXiv 2106.09685, section 4.1",
        "peft scale_layer, merge_adapter",
        {**_LORA, "config": {"r": 2, "lora_alpha": 3}, "factor": 0.6},
        folded,
    ),
    Entry(
        "rank-stabilised LoRA",
        "arXiv 2312.03732",
        "peft merge_adapter",
        {**_LORA, "config": {"r": 2, "lora_alpha": 3, "use_rslora": True}},
        folded,
    ),
    Entry(
        "DoRA",
        "arXiv 2402.09353, equation 5",
        "peft merge_adapter",
        {**_DORA, "config": {"r": 2, "lora_alpha": 3, "use_dora": True}},
        folded,
    ),
)
