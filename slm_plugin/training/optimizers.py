"""What the host's optimizers can do: which of them have parameter groups, and which can be hooked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from slm_plugin.errors import ConfigError, Problem

# a small optimizer of its own for every parameter, stepped in the backward pass
_LAYERWISE = ("use_galore", "galore_layerwise"), ("use_apollo", "apollo_layerwise")

_BY_DEEPSPEED = "an optimizer in DeepSpeed's configuration, which the host does not make; take it out there"
_FUSED = ("lomo", "adalomo")

_NO_GROUPS = {
    "use_galore": "GaLore makes groups of its own for the layers it projects",
    "use_apollo": "APOLLO makes groups of its own for the layers it projects",
    "use_badam": "BAdam exchanges its groups from block to block",
    "use_adam_mini": "Adam-mini keeps one rate for blocks that it finds by name",
}


def without_step(arguments: Mapping[str, Any]) -> str | None:
    """Return, as ``key: value, why``, what keeps a gradient from being added just before the step; else None.

    Args:
        arguments: The host's arguments by name.
    """
    optim = _optim(arguments)
    if _named_by_deepspeed(arguments):
        return _BY_DEEPSPEED
    if optim in _FUSED or optim.endswith("_layerwise"):
        return f"optim: {optim}, it updates the weights inside the backward pass"
    for use, layerwise in _LAYERWISE:
        if arguments.get(use) and arguments.get(layerwise):
            return f"{layerwise}: true, it updates the weights inside the backward pass"
    if arguments.get("use_badam"):
        return "use_badam: true, BAdam steps copies of one block of weights at a time"
    return None


def without_groups(arguments: Mapping[str, Any]) -> str | None:
    """Return, as ``key: value, why``, what keeps the learning rate from differing by parameter; else None.

    Args:
        arguments: The host's arguments by name.
    """
    optim = _optim(arguments)
    if _named_by_deepspeed(arguments):
        return _BY_DEEPSPEED
    if optim in _FUSED:
        return f"optim: {optim}, it has one rate for the whole model"
    if optim.startswith(("galore_", "apollo_")):
        return f"optim: {optim}, it makes groups of its own for optim_target_modules"
    return next((f"{key}: true, {why}" for key, why in _NO_GROUPS.items() if arguments.get(key)), None)


def scale_rates(optimizer: torch.optim.Optimizer, factors: Mapping[torch.Tensor, float]) -> None:
    """Multiply the learning rate of single parameters, by splitting the optimizer's groups.

    Every other setting of a group (decay, betas, ...) stays, so whatever optimizer the host made keeps its
    ways. The largest factor comes first: the host logs the rate of the first group. Call before the
    schedule is made and before the first step.

    Args:
        optimizer: The optimizer, not yet stepped.
        factors: Factor by parameter, of any shape; 1 for those not named.

    Raises:
        ConfigError: The optimizer does not hold the parameters of the model.
    """
    by_id = {id(parameter): factor for parameter, factor in factors.items() if factor != 1.0}
    if not by_id:
        return
    held = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    if not set(by_id) <= held:
        text = (
            f"{len(set(by_id) - held)} parameters with a learning rate of their own are not in the groups of"
            f" {type(optimizer).__name__}. Use optim: adamw_torch without FSDP."
        )
        raise ConfigError([Problem("slm.mitigations", text)])
    split: list[tuple[float, dict[str, Any]]] = []
    for group in optimizer.param_groups:
        shares: dict[float, list[Any]] = {}
        for parameter in group["params"]:
            shares.setdefault(by_id.get(id(parameter), 1.0), []).append(parameter)
        split += [
            (factor, {**group, "params": members, "lr": group["lr"] * factor}) for factor, members in shares.items()
        ]
    optimizer.param_groups[:] = [group for _, group in sorted(split, key=lambda item: -item[0])]


def _named_by_deepspeed(arguments: Mapping[str, Any]) -> bool:
    config = arguments.get("hf_deepspeed_config")
    return config is not None and config.get_value("optimizer") is not None


def _optim(arguments: Mapping[str, Any]) -> str:
    found = arguments.get("optim", "")
    return str(getattr(found, "value", found))
