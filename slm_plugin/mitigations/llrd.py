"""Layer-wise learning-rate decay: the lower a layer, the slower it learns.

Source: arXiv 2305.09681, ``lr_i = lr_N * alpha^(N - i)`` for layer i of N.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

from pydantic import Field

from slm_plugin.errors import ConfigError, Problem
from slm_plugin.hookspecs import hookimpl
from slm_plugin.strict import Strict
from slm_plugin.training.model_parts import depths, parts
from slm_plugin.training.optimizers import without_groups


class Llrd:
    """Gives layer i of N the learning rate ``lr * alpha^(N - i)``, embeddings and head their own place.

    Args:
        options: The decay, and where embeddings and head stand.
    """

    class Options(Strict):
        """Options of ``llrd``."""

        alpha: float = Field(default=0.9, gt=0, le=1)
        """Rate of a layer as a share of the rate of the layer above it; with 1 no layer differs."""

        embeddings: Literal["lowest", "highest"] | float = "lowest"
        """Rate of the input embeddings, which are the head too where the two are tied: ``lowest`` is
        one layer below the first, ``alpha^N``; ``highest`` that of the top layer, 1; or a factor above 0."""

        head: Literal["lowest", "highest"] | float = "highest"
        """Rate of the output embeddings where they are a matrix of their own; as for ``embeddings``."""

        def model_post_init(self, context: Any) -> None:
            """Refuse a factor that would not train."""
            for key, value in (("embeddings", self.embeddings), ("head", self.head)):
                if isinstance(value, float) and not 0 < value < float("inf"):
                    raise ValueError(f"{key} must be lowest, highest or a factor above 0, got {value}.")

    def __init__(self, options: Options) -> None:
        self.options = options

    @property
    def neutral(self) -> bool:
        """Whether every factor is 1 by the options alone."""
        places: dict[str | float, str | float] = {"lowest": self.options.alpha, "highest": 1.0}
        found = [places.get(value, value) for value in (self.options.embeddings, self.options.head)]
        return [self.options.alpha, *found] == [1.0, 1.0, 1.0]

    @hookimpl
    def slm_check(self, arguments: Mapping[str, Any]) -> list[str]:
        """Refuse optimizers whose rate cannot differ by parameter."""
        why = None if self.neutral else without_groups(arguments)
        return [f"llrd does not work with {why}. Use another optimizer, such as optim: adamw_torch."] if why else []

    @hookimpl
    def slm_parameter_groups(self, model: Any) -> dict[str, float] | None:
        """Return the factor of every parameter that trains."""
        return None if self.neutral else rate_factors(model, self.options)


def rate_factors(model: Any, options: Llrd.Options) -> dict[str, float]:
    """Return ``alpha^(N - i)`` by name of every parameter that trains.

    What lies above the layers, the last normalisation for one, has factor 1; what lies below, ``alpha^N``.

    Raises:
        ConfigError: The model has no list of layers.
    """
    places, kinds = depths(model), parts(model)
    if not places:
        text = f"llrd finds no list of layers in {type(model).__name__}. Take llrd out of this run."
        raise ConfigError([Problem("slm.mitigations", text)])
    factors = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        layer, count = places[name].layer, places[name].count
        placed = options.embeddings if kinds[name] == "embeddings" else options.head
        if kinds[name] not in ("embeddings", "head"):
            factors[name] = options.alpha ** max(0, count - layer)
        elif placed == "lowest":
            factors[name] = options.alpha**count
        else:
            factors[name] = 1.0 if placed == "highest" else float(placed)
    return factors


@hookimpl
def slm_register_mitigations(register: Callable[[str, type], None]) -> None:
    """Offer ``llrd``."""
    register("llrd", Llrd)
