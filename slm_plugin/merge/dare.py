"""DARE merge: drop random elements of each difference, scale up the rest, then add or elect signs.

With ``m`` an element's draw, 1 with probability ``density``, the difference ``d = W_k - W0`` becomes
``m d * sum |d| / sum |m d|``, the sums over all elements of the tensor; ``dare_linear`` gives
``W0 + lambda * sum_k w_k d_k``, ``dare_ties`` adds only what has the sign of the sum.

Source: arXiv 2311.03099, section 3.2; mergekit's ``dare_linear`` and ``dare_ties``, which scale what is left
to the sum of magnitudes before, not by ``1 / density``.

Shapes: ``N`` elements of a tensor of any shape, ``P`` of a piece of it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import numpy as np
import torch

from slm_plugin.hookspecs import hookimpl
from slm_plugin.merge.arithmetic import Keep, pieces, rescaling, sum_of_differences
from slm_plugin.merge.options import DensityOptions, DifferenceOptions, sum_problems, weights_of
from slm_plugin.merge.protocol import Group
from slm_plugin.merge.selection import Differences


class DareLinear:
    """Drops each element of a difference with probability ``1 - density`` and adds what is left.

    Args:
        options: Normalising, rescaling and the factor of the sum.
    """

    needs_base = True
    consensus: ClassVar[bool] = False
    MemberOptions = DensityOptions

    class Options(DifferenceOptions):
        """Merge-wide options of the DARE merges."""

        rescale: bool = True
        """Scale what is kept of a difference to the sum of magnitudes it had before."""

    def __init__(self, options: Options) -> None:
        self.options = options

    def problems(self, options: Sequence[Any]) -> list[str]:
        """Say what is wrong with the weights together."""
        return sum_problems(weights_of(list(options)), self.options.normalize)

    def merge(self, group: Group) -> torch.Tensor:
        """Return a tensor of the base plus what is left of the differences."""
        base = group.base
        assert base is not None
        keeps: list[Keep | None] = []
        for number, (member, options) in enumerate(zip(group.members, group.options, strict=True)):
            if options.density >= 1:
                keeps.append(None)
                continue
            mask = draw_mask(base.numel(), options.density, group.seed, group.name, number)
            keeps.append(_drop(member, base, mask, self.options.rescale))
        return sum_of_differences(
            base,
            group.members,
            weights_of(list(group.options)),
            keeps,
            consensus=self.consensus,
            normalize=self.options.normalize,
            scale=self.options.lambda_,
            dtype=group.dtype,
        )


class DareTies(DareLinear):
    """Drops each element of a difference with probability ``1 - density``, then elects signs as ``ties`` does."""

    consensus = True


def draw_mask(n: int, density: float, seed: int, name: str, member: int) -> torch.Tensor:
    """Return which of ``n`` elements stay, ``(n,)`` booleans, each with probability ``density``.

    The draw depends on seed, name of the tensor and number of the member alone, so the order of tensors and
    the other members do not matter.
    """
    words = np.frombuffer(hashlib.sha256(name.encode()).digest(), dtype=np.uint32)
    generator = np.random.Generator(np.random.SFC64([seed, member, *words.tolist()]))
    mask = np.empty(n, dtype=np.bool_)
    for piece in pieces(n):
        np.less(generator.random(piece.stop - piece.start, dtype=np.float32), density, out=mask[piece])
    return torch.from_numpy(mask)


def _drop(member: torch.Tensor, base: torch.Tensor, mask_N: torch.Tensor, rescale: bool) -> Keep:
    factor = 1.0
    if rescale:
        before = after = 0.0
        differences = Differences(member, base)
        for piece in pieces(differences.n):
            magnitude = differences.piece(piece).abs_()
            before += float(magnitude.sum())
            after += float(magnitude.mul_(mask_N[piece]).sum())
        factor = rescaling(before, after)

    def keep(piece: slice, delta: torch.Tensor) -> None:
        delta.mul_(mask_N[piece])
        if factor != 1.0:
            delta.mul_(factor)

    return keep


@hookimpl
def slm_register_merges(register: Callable[[str, type], None]) -> None:
    """Offer ``dare_linear`` and ``dare_ties``."""
    register("dare_linear", DareLinear)
    register("dare_ties", DareTies)
