"""How far a model's weights moved from those it was made from, read one tensor at a time.

For a weight ``W`` made from ``W0``: ``|W - W0| / |W0|`` with Frobenius norms; several weights are taken as one
long vector. Rows that only one of the two has, such as those of new units, are left out.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from pathlib import Path

import torch

from slm_plugin.adapters.check import require_fits, require_same_fingerprint, tied_heads
from slm_plugin.adapters.folded import FoldedCheckpoint
from slm_plugin.adapters.lora import LoraAdapter
from slm_plugin.report.content import OTHER, Drift, DriftCell
from slm_plugin.weights.checkpoint import Checkpoint

_LAYER = re.compile(r"(?:(.*?)\.)?(?:layers|layer|blocks|block|h)\.(\d+)\.(.+)")
_WRAPPING = {"model", "transformer", "language_model"}


def adapter_drift(adapter_folder: Path, base_folder: Path, name: str, base_name: str) -> Drift:
    """Return the drift of an adapter: what it adds to the weights of its base.

    Raises:
        WeightsError: A file is missing or damaged, or the adapter belongs to another base.
    """
    require_same_fingerprint(adapter_folder, base_folder)
    base = Checkpoint(base_folder)
    adapter = LoraAdapter(adapter_folder).aligned(base.names())
    require_fits(adapter, base)
    folded = FoldedCheckpoint(base, adapter)
    tied = tied_heads(adapter, base)
    changed = sorted({*adapter.modules(), *adapter.row_names(), *adapter.replaced()} - set(tied))

    def moved(weight: str) -> torch.Tensor:
        pair = adapter.low_rank(weight)
        if pair is not None and weight not in adapter.replaced() and adapter.rows(weight) is None:
            # exact in float32, where folding would round to the type of the base
            return pair.delta()
        return _difference(folded.tensor(weight), base.tensor(weight))

    return _drift(changed, base, moved, name, base_name)


def model_drift(folder: Path, base_folder: Path, name: str, base_name: str) -> Drift:
    """Return the drift of a full model by the difference of the two checkpoints.

    Raises:
        WeightsError: A file is missing or damaged.
    """
    base, model = Checkpoint(base_folder), Checkpoint(folder)
    shared = sorted(set(base.names()) & set(model.names()))
    alike = [weight for weight in shared if base.shape(weight)[1:] == model.shape(weight)[1:]]

    def moved(weight: str) -> torch.Tensor:
        return _difference(model.tensor(weight), base.tensor(weight))

    return _drift(alike, base, moved, name, base_name)


def split_name(weight: str) -> tuple[str, str]:
    """Return layer and kind of a weight: ``("3", "q_proj")`` for ``model.layers.3.self_attn.q_proj.weight``."""
    module = weight.removesuffix(".weight").removesuffix(".bias")
    match = _LAYER.fullmatch(module)
    if match is None:
        return OTHER, module.rpartition(".")[2]
    part = " ".join(piece for piece in (match[1] or "").split(".") if piece and piece not in _WRAPPING)
    return f"{part} {match[2]}".strip(), match[3].rpartition(".")[2]


def _drift(
    names: list[str], base: Checkpoint, moved: Callable[[str], torch.Tensor], name: str, base_name: str
) -> Drift:
    squares: dict[tuple[str, str], list[float]] = {}
    for weight in names:
        if not base.dtype(weight).is_floating_point:
            continue
        delta = moved(weight)
        origin = base.tensor(weight)[: len(delta)] if delta.dim() else base.tensor(weight)
        sums = squares.setdefault(split_name(weight), [0.0, 0.0])
        sums[0] += float(torch.linalg.vector_norm(delta.float())) ** 2
        sums[1] += float(torch.linalg.vector_norm(origin.float())) ** 2
    squares = {key: sums for key, sums in squares.items() if sums[1] > 0}
    layers: dict[str, list[float]] = {}
    for (layer, _), (delta_sum, base_sum) in squares.items():
        sums = layers.setdefault(layer, [0.0, 0.0])
        sums[0] += delta_sum
        sums[1] += base_sum
    order = sorted(layers, key=_layer_order)
    cells = [DriftCell(layer, kind, _relative(sums)) for (layer, kind), sums in squares.items()]
    cells.sort(key=lambda cell: _layer_order(cell.layer))
    whole = [sum(sums[side] for sums in layers.values()) for side in (0, 1)]
    return Drift(name, base_name, _relative(whole), {layer: _relative(layers[layer]) for layer in order}, cells)


def _difference(trained: torch.Tensor, base: torch.Tensor) -> torch.Tensor:
    if not base.dim():
        return trained.float() - base.float()
    n_shared = min(len(base), len(trained))
    return trained[:n_shared].float() - base[:n_shared].float()


def _relative(sums: list[float]) -> float:
    delta, base = sums
    return math.sqrt(delta / base) if base else 0.0  # no weights at all


def _layer_order(layer: str) -> tuple[bool, str, int]:
    part, _, number = layer.rpartition(" ")
    return layer == OTHER, part, int(number) if number.isdigit() else 0
