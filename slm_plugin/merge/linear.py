"""Linear merge: the weighted average of models, ``sum_k w_k W_k / sum_k w_k``.

Source: arXiv 2203.05482 (model soups); mergekit's ``linear``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from slm_plugin.hookspecs import hookimpl
from slm_plugin.merge.arithmetic import weighted_sum
from slm_plugin.merge.options import WeightOptions, sum_problems, weights_of
from slm_plugin.merge.protocol import Group
from slm_plugin.strict import Strict


class Linear:
    """Averages the models: ``sum_k weight_k * W_k``, divided by ``sum_k weight_k`` where normalised.

    Args:
        options: Whether to normalise.
    """

    needs_base = False
    MemberOptions = WeightOptions

    class Options(Strict):
        """Merge-wide options of ``linear``."""

        normalize: bool = True
        """Divide by the sum of the weights."""

    def __init__(self, options: Options) -> None:
        self.options = options

    def problems(self, options: Sequence[Any]) -> list[str]:
        """Say what is wrong with the weights together."""
        return sum_problems(weights_of(list(options)), self.options.normalize)

    def coefficients(self, options: Sequence[Any]) -> tuple[float, list[float]]:
        """Return the factor of the base, 0, and those of the members."""
        weights = weights_of(list(options))
        divisor = sum(weights) if self.options.normalize else 1.0
        return 0.0, [weight / divisor for weight in weights]

    def merge(self, group: Group) -> torch.Tensor:
        """Return the weighted average of a tensor."""
        weights = weights_of(list(group.options))
        return weighted_sum(group.members, weights, group.dtype, sum(weights) if self.options.normalize else 1.0)


@hookimpl
def slm_register_merges(register: Callable[[str, type], None]) -> None:
    """Offer ``linear``."""
    register("linear", Linear)
