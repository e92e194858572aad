"""The k largest magnitudes of a difference, exactly and without sorting it.

A sorted sample brackets the k-th largest value; one pass counts what lies above the bracket and collects
what lies inside, which is about one element in a hundred; the value is then selected among those few.

Shapes: ``N`` elements of a tensor of any shape, ``P`` of a piece of it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from slm_plugin.merge.arithmetic import PIECE, difference, pieces, working_dtype

SAMPLE = 1 << 16
"""Elements looked at for the first guess."""


@dataclass(frozen=True)
class Threshold:
    """Which elements are among the k largest: all above ``value`` and the first ``n_kept`` of those equal to it.

    Attributes:
        value: The k-th largest magnitude.
        n_kept: How many elements of exactly that magnitude are among the k, taken in index order.
        n_equal: How many elements have exactly that magnitude.
    """

    value: float
    n_kept: int
    n_equal: int


class Differences:
    """``member - base`` of two tensors, never held as a whole."""

    def __init__(self, member: torch.Tensor, base: torch.Tensor) -> None:
        self.member_N, self.base_N = member.reshape(-1), base.reshape(-1)
        self.n = self.base_N.numel()
        self.buffer = torch.empty(min(PIECE, self.n), dtype=working_dtype(member, base))

    def piece(self, piece: slice) -> torch.Tensor:
        """Return a piece, ``(P,)``; it is valid until the next one is asked for."""
        return difference(self.member_N, self.base_N, piece, self.buffer)

    def sample(self) -> np.ndarray:
        """Return magnitudes at even distances, sorted, ascending; ``(S,)``, S at most twice :data:`SAMPLE`."""
        # an odd step meets every column of matrices, whose widths are even
        step = self.n // SAMPLE | 1
        kind = self.buffer.dtype
        found = self.member_N[::step].to(kind) - self.base_N[::step].to(kind)
        ordered: np.ndarray = np.sort(found.abs_().numpy())
        return ordered


@torch.no_grad()
def find_threshold(differences: Differences, k: int) -> Threshold:
    """Return what separates the ``k`` largest magnitudes from the others, ``1 <= k <= n``."""
    sample = differences.sample()
    position = len(sample) * (1 - k / differences.n)
    margin = 4 * math.sqrt(len(sample) * (k / differences.n) * (1 - k / differences.n)) + 2
    while True:
        first, last = math.floor(position - margin), math.ceil(position + margin)
        low = float(sample[first]) if first >= 0 else -1.0
        high = float(sample[last]) if last < len(sample) else math.inf
        found = _within(differences, k, low, high)
        if found is not None:
            return found
        margin *= 8


def _within(differences: Differences, k: int, low: float, high: float) -> Threshold | None:
    """Look for the k-th largest magnitude in ``[low, high]``; None where it lies elsewhere."""
    n_above, inside = 0, []
    for piece in pieces(differences.n):
        magnitude = differences.piece(piece).abs_().numpy()
        n_above += int(np.count_nonzero(magnitude > high))
        inside.append(magnitude[(magnitude > low) & (magnitude <= high)])
    values = np.concatenate(inside)
    if k <= n_above:
        return None
    rank = k - n_above
    if rank <= len(values):
        value = np.partition(values, len(values) - rank)[len(values) - rank]
        n_kept = rank - int(np.count_nonzero(values > value))
        return Threshold(float(value), n_kept, int(np.count_nonzero(values == value)))
    # the bracket's lower end itself: a value that many elements share
    n_equal = _count_equal(differences, low)
    n_kept = rank - len(values)
    return Threshold(low, n_kept, n_equal) if n_kept <= n_equal else None


def _count_equal(differences: Differences, value: float) -> int:
    return sum(
        int(np.count_nonzero(differences.piece(piece).abs_().numpy() == value)) for piece in pieces(differences.n)
    )


def keep_largest(threshold: Threshold, factor: float = 1.0) -> Callable[[slice, torch.Tensor], None]:
    """Return what zeroes, piece by piece and in order, all but the k largest of a difference.

    Args:
        threshold: What :func:`find_threshold` found.
        factor: Number that the elements which stay are multiplied by.

    Returns:
        What takes a slice of the ``N`` elements and the piece of the difference there, ``(P,)``, and changes
        the piece in place.
    """
    left = threshold.n_kept
    some_equal = 0 < threshold.n_kept < threshold.n_equal

    def keep(piece: slice, delta: torch.Tensor) -> None:
        nonlocal left
        bound = threshold.value
        if some_equal and left > 0:
            equal = np.flatnonzero(np.abs(delta.numpy()) == delta.numpy().dtype.type(bound))
            delta[torch.from_numpy(equal[left:])] = 0
            left -= min(left, len(equal))
            bound = _below(bound, delta)
        elif not some_equal and threshold.n_kept:
            bound = _below(bound, delta)
        # hardshrink keeps what is strictly above
        torch.ops.aten.hardshrink.out(delta, bound, out=delta)
        if factor != 1.0:
            delta.mul_(factor)

    return keep


def _below(bound: float, like: torch.Tensor) -> float:
    kind = like.numpy().dtype.type
    return max(0.0, float(np.nextafter(kind(bound), kind(0)))) if bound > 0 else 0.0
