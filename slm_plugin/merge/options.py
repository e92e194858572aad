"""Options that several merge methods share, with the names and defaults of mergekit."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, ConfigDict, Field

from slm_plugin.strict import Strict


def _finite(value: float) -> float:
    if value - value != 0:
        raise ValueError(f"must be a finite number, got {value}.")
    return value


Finite = Annotated[float, AfterValidator(_finite)]
"""A number that is neither infinite nor NaN."""


class WeightOptions(Strict):
    """What is set for each model."""

    weight: Finite
    """Share of the model."""


class DensityOptions(WeightOptions):
    """What is set for each model."""

    density: Finite = Field(default=1.0, ge=0, le=1)
    """Share of the elements of its difference from the base that is kept; 1 keeps all."""


class DifferenceOptions(Strict):
    """Options of methods that add differences to a base."""

    model_config = ConfigDict(populate_by_name=True)

    normalize: bool = False
    """Divide the sum of differences by the sum of their weights."""

    lambda_: Finite = Field(default=1.0, alias="lambda")
    """Factor of the summed difference; 1 is neutral."""

    int8_mask: bool = False
    """A setting of mergekit that saves memory there; without effect here."""


def sum_problems(weights: list[float], normalize: bool, switch: str | None = "normalize") -> list[str]:
    """Say what is wrong with weights that will be divided by their sum.

    Args:
        weights: One for each member.
        normalize: Whether they will be.
        switch: Option that keeps them from being divided; None where there is none.
    """
    if normalize and abs(sum(weights)) < 1e-8:
        text = ", ".join(f"{weight:g}" for weight in weights)
        way = f" or set {switch}: false" if switch else ""
        return [f"the weights {text} sum to zero, so they cannot be normalised; change them{way}."]
    return []


def weights_of(options: list[Any]) -> list[float]:
    """Return the members' weights."""
    return [float(option.weight) for option in options]
