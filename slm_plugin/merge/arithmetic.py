"""Sums of tensors and of differences from a base, in cache-sized pieces.

No more than a few pieces are ever held in float32, whatever the size of the tensors: ``N`` is the number of
elements of a tensor, ``P`` that of a piece, ``K`` the number of members.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch

PIECE = 1 << 18
"""Elements of a piece: a megabyte in float32, so that the steps on it stay in the processor's cache."""

SMALLEST_NORM = 1e-7
"""Differences whose magnitudes sum to less are not rescaled."""

Keep = Callable[[slice, torch.Tensor], None]
"""Changes a piece of a difference in place: drops some elements and rescales the others."""


def pieces(n: int) -> Iterator[slice]:
    """Cut ``range(n)`` into slices of :data:`PIECE`."""
    for start in range(0, n, PIECE):
        yield slice(start, min(n, start + PIECE))


def rescaling(before: float, after: float) -> float:
    """Return what brings a difference back to the sum of magnitudes it had; 1 where one of the sums is nearly 0."""
    return before / after if before >= SMALLEST_NORM and after >= SMALLEST_NORM else 1.0


def working_dtype(*tensors: torch.Tensor) -> torch.dtype:
    """Return the type to calculate in for tensors of any shape: float32, or float64 where one has it."""
    return torch.float64 if any(tensor.dtype == torch.float64 for tensor in tensors) else torch.float32


@torch.no_grad()
def weighted_sum(
    tensors: Sequence[torch.Tensor], factors: Sequence[float], dtype: torch.dtype, divisor: float = 1.0
) -> torch.Tensor:
    """Return ``sum_k factor_k * tensor_k / divisor`` with one rounding to ``dtype``.

    Args:
        tensors: Of one shape, any.
        factors: One for each tensor.
        dtype: Type of the result.
        divisor: What the sum is divided by.

    Returns:
        A tensor of that shape.
    """
    flat = [tensor.reshape(-1) for tensor in tensors]
    result = torch.empty(tensors[0].shape, dtype=dtype)
    result_N = result.view(-1)
    total_P = torch.empty(min(PIECE, result_N.numel()), dtype=working_dtype(*tensors))
    for piece in pieces(result_N.numel()):
        total = total_P[: piece.stop - piece.start].zero_()
        for tensor_N, factor in zip(flat, factors, strict=True):
            total.add_(tensor_N[piece], alpha=factor)
        result_N[piece].copy_(total if divisor == 1.0 else total.div_(divisor))
    return result


@torch.no_grad()
def difference(member_N: torch.Tensor, base_N: torch.Tensor, piece: slice, out_P: torch.Tensor) -> torch.Tensor:
    """Write ``member - base`` of a piece into a buffer and return the filled part, of the piece's shape."""
    out = out_P[: piece.stop - piece.start]
    return out.copy_(member_N[piece]).sub_(base_N[piece])


@torch.no_grad()
def sum_of_differences(
    base: torch.Tensor,
    members: Sequence[torch.Tensor],
    weights: Sequence[float],
    keeps: Sequence[Keep | None],
    *,
    consensus: bool,
    normalize: bool,
    scale: float,
    dtype: torch.dtype,
) -> torch.Tensor:
    """Return ``base + scale * sum_k weight_k * keep_k(member_k - base)``.

    With ``consensus`` an element counts only where its weighted difference has the sign of their sum (0
    counts as positive): where ``s w_k d_k > 0`` with ``s = sign(sum_k w_k d_k)``. With ``normalize``
    the sum is divided by that of the weights that count, or by 1 where that is 0.

    Source: arXiv 2306.01708, section 3 (sign election and disjoint mean).

    Args:
        base: Of any shape.
        members: Each of the shape of the base.
        weights: One for each member.
        keeps: For each member what drops and rescales elements of its difference; None for nothing.
        consensus: Whether the sign of the sum decides what counts.
        normalize: Whether the sum is divided by that of the weights.
        scale: Factor of the sum.
        dtype: Type of the result.

    Returns:
        A tensor of the shape of the base.
    """
    base_N = base.reshape(-1)
    flat = [member.reshape(-1) for member in members]
    result = torch.empty(base.shape, dtype=dtype)
    result_N = result.view(-1)
    working = working_dtype(base, *members)
    size = min(PIECE, base_N.numel())
    start_P, total_P, sign_P, weight_P = (torch.empty(size, dtype=working) for _ in range(4))
    deltas_KP = torch.empty(len(flat), size, dtype=working)
    flags_P = torch.empty(size, dtype=torch.bool)
    divisor = sum(weights)
    for piece in pieces(base_N.numel()):
        n = piece.stop - piece.start
        start, total = start_P[:n].copy_(base_N[piece]), total_P[:n].zero_()
        deltas = [delta_P[:n] for delta_P in deltas_KP]
        for delta, member_N, weight, keep in zip(deltas, flat, weights, keeps, strict=True):
            delta.copy_(member_N[piece]).sub_(start)
            if keep is not None:
                keep(piece, delta)
            total.add_(delta.mul_(weight))
        if consensus:
            _agreed(deltas, weights, total, sign_P[:n], weight_P[:n], flags_P[:n], normalize)
        elif normalize:
            total.div_(divisor if abs(divisor) >= 1e-8 else 1.0)
        result_N[piece].copy_(start.add_(total, alpha=scale))
    return result


def _agreed(
    deltas: Sequence[torch.Tensor],
    weights: Sequence[float],
    total: torch.Tensor,
    sign: torch.Tensor,
    weight_sum: torch.Tensor,
    flags: torch.Tensor,
    normalize: bool,
) -> None:
    """Replace the sum of differences by that of those which have its sign."""
    sign.copy_(torch.ge(total, 0, out=flags)).mul_(2).sub_(1)
    total.zero_()
    weight_sum.zero_()
    for delta, weight in zip(deltas, weights, strict=True):
        # after multiplication by the elected sign, agreeing is being positive
        delta.mul_(sign)
        if normalize:
            weight_sum.add_(torch.gt(delta, 0, out=flags), alpha=weight)
        total.add_(delta.clamp_(min=0))
    total.mul_(sign)
    if normalize:
        weight_sum.add_(torch.eq(weight_sum, 0, out=flags))
        total.div_(weight_sum)


@torch.no_grad()
def low_rank_sum(
    tensors: Sequence[torch.Tensor],
    factors: Sequence[float],
    ups: Sequence[torch.Tensor],
    downs: Sequence[torch.Tensor],
    dtype: torch.dtype,
) -> torch.Tensor:
    """Return ``sum_k factor_k * tensor_k + [up_1 up_2 ..] @ [down_1; down_2; ..]`` with one rounding.

    Args:
        tensors: Full tensors of one shape whose first dimension is ``O``.
        factors: One for each tensor.
        ups: Matrices ``(O, R_i)``, float32, with the factors of their updates in them.
        downs: Matrices ``(R_i, I)``, float32.
        dtype: Type of the result.

    Returns:
        A tensor of the shape of the full ones.
    """
    up_OR, down_RI = torch.cat(list(ups), dim=1), torch.cat(list(downs), dim=0)
    result = torch.empty(tensors[0].shape, dtype=dtype)
    result_OI = result.view(up_OR.shape[0], -1)
    flat = [tensor.reshape(result_OI.shape) for tensor in tensors]
    step = max(1, PIECE // result_OI.shape[1])
    for start in range(0, result_OI.shape[0], step):
        rows = slice(start, start + step)
        total = up_OR[rows] @ down_RI
        for tensor_OI, factor in zip(flat, factors, strict=True):
            total.add_(tensor_OI[rows], alpha=factor)
        result_OI[rows].copy_(total)
    return result
