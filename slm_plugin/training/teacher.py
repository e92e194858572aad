"""The model as it was before, run without a gradient: its adapter off, or its weights of the stage's start."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import nn


@contextlib.contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Switch dropout and the like off, and every module back to what it was afterwards."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


@contextlib.contextmanager
def without_adapter(model: Any) -> Iterator[None]:
    """Switch a PEFT model's adapter off, modules trained in full too; what trains afterwards is what did before."""
    trained = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    try:
        with model.disable_adapter():
            yield
    finally:
        # PEFT sets the whole adapter free again, also what was frozen
        for parameter, requires_grad in trained:
            parameter.requires_grad_(requires_grad)


@contextlib.contextmanager
def holding(model: nn.Module, weights: Mapping[str, torch.Tensor]) -> Iterator[None]:
    """Put other tensors in the place of parameters, wherever the model holds them, and the parameters back.

    Each of ``weights`` has the name and the shape of a parameter.

    Not ``torch.func.functional_call``, which loses a parameter that two paths of a PEFT model lead to; not
    ``parameter.data``, under which autocast would give back its cached copies of today's weights.
    """
    others = {id(p): weights[name] for name, p in model.named_parameters() if name in weights}
    places = [
        (module._parameters, key, parameter)
        for module in model.modules()
        for key, parameter in module._parameters.items()
        if id(parameter) in others
    ]
    try:
        for held, key, parameter in places:
            held[key] = others[id(parameter)]  # type: ignore[assignment]  # a plain tensor serves a forward
        yield
    finally:
        for held, key, parameter in places:
            held[key] = parameter


def teacher_logits(
    model: Any, inputs: Mapping[str, torch.Tensor], start: Mapping[str, torch.Tensor] | None
) -> torch.Tensor:
    """Return the logits of the model as it was, ``(batch, length, words)``, leaving model and random state alone.

    Args:
        model: The model in training, not wrapped for several processes.
        inputs: Arguments of its forward, such as ``input_ids`` ``(batch, length)``.
        start: Weights by parameter name, each of its shape, to use in place of today's; None switches the adapter off.
    """
    arguments = {**inputs, "use_cache": False}
    then = without_adapter(model) if start is None else holding(model, start)
    with torch.no_grad(), evaluating(model), then:
        return model(**arguments).logits


def is_partitioned(model: nn.Module) -> bool:
    """Say whether DeepSpeed ZeRO-3 has partitioned the model's parameters over the processes."""
    return any(hasattr(parameter, "ds_id") for parameter in model.parameters())
