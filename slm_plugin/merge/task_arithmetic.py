"""Task arithmetic: weighted differences from a base, added to it: ``W0 + lambda * sum_k w_k (W_k - W0)``.

Source: arXiv 2212.04089, section 2; mergekit's ``task_arithmetic``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from slm_plugin.hookspecs import hookimpl
from slm_plugin.merge.arithmetic import sum_of_differences
from slm_plugin.merge.options import DifferenceOptions, WeightOptions, sum_problems, weights_of
from slm_plugin.merge.protocol import Group


class TaskArithmetic:
    """Adds what each model learned to the base: ``W0 + lambda * sum_k weight_k * (W_k - W0)``.

    Args:
        options: Normalising and the factor of the sum.
    """

    needs_base = True
    MemberOptions = WeightOptions
    Options = DifferenceOptions

    def __init__(self, options: DifferenceOptions) -> None:
        self.options = options

    def problems(self, options: Sequence[Any]) -> list[str]:
        """Say what is wrong with the weights together."""
        return sum_problems(weights_of(list(options)), self.options.normalize)

    def coefficients(self, options: Sequence[Any]) -> tuple[float, list[float]]:
        """Return the factor of the base and those of the members."""
        weights = weights_of(list(options))
        scale = self.options.lambda_ / (sum(weights) if self.options.normalize else 1.0)
        factors = [weight * scale for weight in weights]
        return 1.0 - sum(factors), factors

    def merge(self, group: Group) -> torch.Tensor:
        """Return a tensor of the base plus the weighted differences."""
        assert group.base is not None
        return sum_of_differences(
            group.base,
            group.members,
            weights_of(list(group.options)),
            [None] * len(group.members),
            consensus=False,
            normalize=self.options.normalize,
            scale=self.options.lambda_,
            dtype=group.dtype,
        )


@hookimpl
def slm_register_merges(register: Callable[[str, type], None]) -> None:
    """Offer ``task_arithmetic``."""
    register("task_arithmetic", TaskArithmetic)
