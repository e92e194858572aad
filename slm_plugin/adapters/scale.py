"""The arithmetic of a discounted adapter: what a factor does to each kind of trained weight.

Shapes: ``O`` outputs and ``I`` inputs of a matrix, ``V`` rows of an embedding or head, ``D`` its width.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from slm_plugin.adapters.lora import Decomposed
from slm_plugin.errors import WeightsError


def norm(weight_OI: torch.Tensor, axis: int) -> torch.Tensor:
    """Return the length of each row, ``(O,)`` (``axis`` 0), or column, ``(I,)`` (1), of a weight, in float32."""
    matrix = weight_OI.float().flatten(1)
    return torch.linalg.norm(matrix, dim=1 - axis)


def discounted_magnitude(base_OI: torch.Tensor, decomposed: Decomposed, factor: float) -> torch.Tensor:
    """Return DoRA's magnitudes moved toward the base: ``(1 - factor) * norm(W0) + factor * magnitude``.

    Float32 of the shape of ``decomposed.magnitude``: ``(O,)`` for axis 0, ``(I,)`` for 1.
    """
    return torch.lerp(norm(base_OI, decomposed.axis), decomposed.magnitude, factor)


def with_magnitude(base_OI: torch.Tensor, decomposed: Decomposed, factor: float = 1.0) -> torch.Tensor:
    """Return what DoRA makes of a weight at a factor, of its shape, in float32.

    ``magnitude(factor) * (W0 + factor * delta) / norm(W0 + factor * delta)``, with ``delta = scale * B A`` and
    ``magnitude(factor)`` of :func:`discounted_magnitude`: 0 gives the base, 1 the trained weight.

    Source: arXiv 2402.09353, equation 5; the factor is ours.
    """
    if factor == 0:
        return base_OI.float()
    moved = base_OI.float() + decomposed.low_rank.delta(factor).reshape(base_OI.shape)
    magnitude = decomposed.magnitude if factor == 1 else discounted_magnitude(base_OI, decomposed, factor)
    shares = magnitude / norm(moved, decomposed.axis)
    shape = [1] * moved.dim()
    shape[decomposed.axis] = -1
    return shares.view(shape) * moved


def interpolated(
    base_VD: torch.Tensor, trained_VD: torch.Tensor, factor: float, units: Mapping[str, Any] | None
) -> torch.Tensor:
    """Move a weight that was trained in full toward the base: ``(1 - factor) * base + factor * trained``.

    Rows that the base does not have stay as trained. So do the unit rows of embeddings and head, which
    are the matrices with at least ``first_id + count`` rows.

    Args:
        base_VD: The weight of the base; may have fewer rows.
        trained_VD: The weight as trained.
        factor: 0 gives the base, 1 the trained weight, bit by bit.
        units: ``first_id`` and ``count`` of the units, as an adapter's card records them; None without.

    Returns:
        A tensor of the shape of ``trained_VD``; float32, for a factor of 1 of the trained type.

    Raises:
        WeightsError: The two differ in more than the number of rows.
    """
    if factor == 1:
        return trained_VD
    n_shared = min(len(base_VD), len(trained_VD))
    if base_VD.shape[1:] != trained_VD.shape[1:]:
        raise WeightsError(f"a weight of shape {tuple(trained_VD.shape)} has no base in {tuple(base_VD.shape)}.")
    result = trained_VD.float().clone()
    result[:n_shared] = torch.lerp(base_VD[:n_shared].float(), result[:n_shared], factor)
    if units and trained_VD.dim() == 2 and len(trained_VD) >= units["first_id"] + units["count"]:
        rows = slice(units["first_id"], units["first_id"] + units["count"])
        result[rows] = trained_VD[rows].float()
    return result


def interpolated_rows(
    base_VD: torch.Tensor, ids: list[int], trained: torch.Tensor, factor: float, units: Mapping[str, Any] | None
) -> torch.Tensor:
    """Move single trained rows toward the base by the rule of :func:`interpolated`.

    Args:
        base_VD: The whole matrix of the base.
        ids: Row of each trained row.
        trained: The trained rows, ``(rows, D)``.
        factor: 0 gives the base's rows, 1 the trained ones.
        units: Units whose rows stay as trained; None without.

    Returns:
        ``(rows, D)``; float32, for a factor of 1 of the trained type.
    """
    if factor == 1:
        return trained
    first, end = (units["first_id"], units["first_id"] + units["count"]) if units else (0, 0)
    result = trained.float().clone()
    for position, row in enumerate(ids):
        if row < len(base_VD) and not first <= row < end:
            result[position] = torch.lerp(base_VD[row].float(), result[position], factor)
    return result
