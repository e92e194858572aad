"""TIES merge: trim each difference to its largest elements, elect a sign, average what agrees with it.

With ``d_k = trim(W_k - W0)`` and for each element ``s = sign(sum_k w_k d_k)``, 0 counting as positive, the result is
``W0 + lambda * sum_{k in A} w_k d_k / sum_{k in A} w_k``, where ``A = {k: s w_k d_k > 0}``.

Source: arXiv 2306.01708, section 3, with weights beside it; mergekit's ``ties``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from pydantic import Field

from slm_plugin.hookspecs import hookimpl
from slm_plugin.merge.arithmetic import Keep, pieces, rescaling, sum_of_differences
from slm_plugin.merge.options import DensityOptions, DifferenceOptions, sum_problems, weights_of
from slm_plugin.merge.protocol import Group
from slm_plugin.merge.selection import Differences, find_threshold, keep_largest


class Ties:
    """Keeps the largest elements of each difference from the base, and of those the ones of the elected sign.

    Args:
        options: Normalising, rescaling and the factor of the sum.
    """

    needs_base = True
    MemberOptions = DensityOptions

    class Options(DifferenceOptions):
        """Merge-wide options of ``ties``."""

        normalize: bool = Field(default=True)
        """Divide each element's sum by the weights of the models that agree on its sign."""

        rescale: bool = False
        """Scale what is kept of a difference to the sum of magnitudes it had before."""

    def __init__(self, options: Options) -> None:
        self.options = options

    def problems(self, options: Sequence[Any]) -> list[str]:
        """Say what is wrong with the weights together."""
        return sum_problems(weights_of(list(options)), self.options.normalize)

    def merge(self, group: Group) -> torch.Tensor:
        """Return a tensor of the base plus what the trimmed differences agree on."""
        base = group.base
        assert base is not None
        keeps = [
            _trim(member, base, options.density, self.options.rescale)
            for member, options in zip(group.members, group.options, strict=True)
        ]
        return sum_of_differences(
            base,
            group.members,
            weights_of(list(group.options)),
            keeps,
            consensus=True,
            normalize=self.options.normalize,
            scale=self.options.lambda_,
            dtype=group.dtype,
        )


def n_kept(n: int, density: float) -> int:
    """Return how many of ``n`` elements a density keeps: ``int(density * n)``, but one where it is above 0."""
    return 0 if density <= 0 or n == 0 else max(1, int(density * n))


def _trim(member: torch.Tensor, base: torch.Tensor, density: float, rescale: bool) -> Keep | None:
    n = base.numel()
    if density >= 1 or n == 0:
        return None
    k = n_kept(n, density)
    if k == 0:
        return _drop_all
    differences = Differences(member, base)
    threshold = find_threshold(differences, k)
    if not rescale:
        return keep_largest(threshold)
    before, after, keep = 0.0, 0.0, keep_largest(threshold)
    for piece in pieces(n):
        delta = differences.piece(piece)
        before += float(delta.abs().sum())
        keep(piece, delta)
        after += float(delta.abs().sum())
    return keep_largest(threshold, rescaling(before, after))


def _drop_all(_: slice, delta: torch.Tensor) -> None:
    delta.zero_()


@hookimpl
def slm_register_merges(register: Callable[[str, type], None]) -> None:
    """Offer ``ties``."""
    register("ties", Ties)
