"""L2 anchor: pull the trained weights toward those the stage started from, by ``strength * sum((p - p0)^2)``.

Source: Li, Grandvalet and Davoine 2018, arXiv 1802.01483 (L2-SP, without its term for new weights).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal

import torch
from pydantic import Field

from slm_plugin.hookspecs import hookimpl
from slm_plugin.records import StageRun
from slm_plugin.strict import Strict
from slm_plugin.training import stage_start
from slm_plugin.training.optimizers import without_step

CHUNK_VALUES = 1 << 22


class L2Anchor:
    """Adds ``strength * sum((p - p0)^2)`` over the trained weights, by its gradient ``2 * strength * (p - p0)``.

    Args:
        options: Strength, and where the anchor is kept.
    """

    class Options(Strict):
        """Options of ``l2_anchor``."""

        strength: float = Field(default=1.0e-3, ge=0, allow_inf_nan=False)
        """Factor of the summed squared distance to the weights at the stage's start; 0 leaves training
        bit-identical."""

        store: Literal["device", "cpu"] = "device"
        """Where the start is kept: on the ``device`` of the weights, or on the ``cpu``, which saves the
        device's memory and costs a copy each optimizer step."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self._model: Any = None
        self._anchors: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}

    @property
    def neutral(self) -> bool:
        """Whether the penalty is zero by the options alone."""
        return not self.options.strength

    @hookimpl
    def slm_check(self, arguments: Mapping[str, Any]) -> list[str]:
        """Refuse optimizers that leave no moment to add a gradient in."""
        why = without_step(arguments) if self.options.strength else None
        return (
            [f"l2_anchor does not work with {why}. Use another optimizer, such as optim: adamw_torch."] if why else []
        )

    @hookimpl
    def slm_stage_start(self, model: Any) -> None:
        """Remember whose weights are anchored; they are copied before the first step, when it is known which train."""
        self._model = model if self.options.strength else None

    @hookimpl
    def slm_extra_gradient(self, run: StageRun, parameters: Sequence[torch.nn.Parameter]) -> torch.Tensor | None:
        """Add the gradient of the penalty and return its value, a scalar."""
        if not self.options.strength:
            return None
        if any(id(parameter) not in self._anchors for parameter in parameters):
            self._take_anchors(run, parameters)
        pairs = [self._anchors[id(parameter)] for parameter in parameters]
        value = pull(pairs, self.options.strength)
        if self._sharded(parameters) and torch.distributed.is_initialized():
            torch.distributed.all_reduce(value)
        return value

    @hookimpl
    def slm_stage_end(self, run: StageRun) -> None:
        """Let go of the start."""
        self._model, self._anchors = None, {}
        if self.options.strength:
            stage_start.forget(run)

    def _take_anchors(self, run: StageRun, parameters: Sequence[torch.nn.Parameter]) -> None:
        named = {name: p for name, p in self._model.named_parameters() if p.requires_grad}
        if not self._sharded(parameters):
            anchors = stage_start.at_start(run, named)
        else:
            # the shards come a group at a time, in the same order in every run
            known = [weight for weight, _ in self._anchors.values()]
            shards = known + [p for p in parameters if id(p) not in self._anchors]
            named = {f"shard.{number}": weight for number, weight in enumerate(shards)}
            anchors = stage_start.at_start(run, named, stage_start.shard_name(run))
        for name, weight in named.items():
            self._anchors[id(weight)] = weight, self._stored(anchors[name])

    def _sharded(self, parameters: Sequence[torch.nn.Parameter]) -> bool:
        """Say whether the optimizer owns shards of its own instead of the model's parameters."""
        own = {id(parameter) for parameter in self._model.parameters()}
        return any(id(parameter) not in own for parameter in parameters)

    def _stored(self, anchor: torch.Tensor) -> torch.Tensor:
        if self.options.store == "device":
            return anchor
        kept = anchor.cpu()
        return kept.pin_memory() if anchor.is_cuda else kept


def pull(pairs: Sequence[tuple[torch.Tensor, torch.Tensor]], strength: float) -> torch.Tensor:
    """Add ``2 * strength * (p - p0)`` to the gradient of each p and return ``strength * sum((p - p0)^2)``.

    Works through the weights in pieces of at most :data:`CHUNK_VALUES` values where one tensor is larger, so
    that the differences take little memory.

    Args:
        pairs: Weights of any shape that have a gradient, each with its start, of the same shape.
        strength: Factor of the penalty.

    Returns:
        A float32 scalar.
    """
    device = pairs[0][0].device
    total = torch.zeros((), dtype=torch.float32, device=device)
    for weights, starts, gradients in _chunks(pairs):
        moved = [
            start.to(device=weight.device, non_blocking=True) for weight, start in zip(weights, starts, strict=True)
        ]
        differences = torch._foreach_sub(weights, moved)
        torch._foreach_add_(gradients, _cast(differences, gradients), alpha=2 * strength)
        norms = torch.stack([norm.to(device=device, dtype=torch.float32) for norm in torch._foreach_norm(differences)])
        total += norms.square().sum()
    return total * strength


def _cast(values: Sequence[torch.Tensor], like: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    return [value.to(other.dtype) for value, other in zip(values, like, strict=True)]


def _chunks(
    pairs: Sequence[tuple[torch.Tensor, torch.Tensor]],
) -> Iterator[tuple[list[torch.Tensor], list[torch.Tensor], list[torch.Tensor]]]:
    """Yield weights, starts and gradients in pieces of about :data:`CHUNK_VALUES` values together."""
    weights: list[torch.Tensor] = []
    starts: list[torch.Tensor] = []
    gradients: list[torch.Tensor] = []
    held = 0
    for weight, start in pairs:
        assert weight.grad is not None
        for piece in zip(*(_pieces(tensor) for tensor in (weight.detach(), start, weight.grad)), strict=True):
            if weights and held + piece[0].numel() > CHUNK_VALUES:
                yield weights, starts, gradients
                weights, starts, gradients, held = [], [], [], 0
            weights.append(piece[0])
            starts.append(piece[1])
            gradients.append(piece[2])
            held += piece[0].numel()
    if weights:
        yield weights, starts, gradients


def _pieces(tensor: torch.Tensor) -> Sequence[torch.Tensor]:
    """Cut a large tensor along its first dimension; the pieces are views."""
    if tensor.dim() == 0 or tensor.numel() <= CHUNK_VALUES:
        return [tensor]
    rows = max(1, CHUNK_VALUES * tensor.shape[0] // tensor.numel())
    return tensor.split(rows)


@hookimpl
def slm_register_mitigations(register: Callable[[str, type], None]) -> None:
    """Offer ``l2_anchor``."""
    register("l2_anchor", L2Anchor)
