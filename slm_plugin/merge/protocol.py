"""What a merge method is: options, and one function on the tensors of one name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, runtime_checkable

import torch
from pydantic import BaseModel


@dataclass(frozen=True)
class Group:
    """The tensors of one name, one from each model; all have the same shape.

    Attributes:
        name: Name of the tensor in the models.
        members: Tensors of the members, in the order of the configuration.
        options: What the method takes for each member; ``MemberOptions`` of the method.
        base: Tensor of the base model; None for methods without one.
        dtype: Type of the result; arithmetic is in float32 (float64 for float64) with one rounding to it.
        seed: Seed of methods that draw.
    """

    name: str
    members: Sequence[torch.Tensor]
    options: Sequence[Any]
    base: torch.Tensor | None
    dtype: torch.dtype
    seed: int


@runtime_checkable
class MergeMethod(Protocol):
    """A merge method; plugins register the class under a name (``slm_register_merges``).

    A method whose result is a weighted sum of its inputs may also have ``coefficients(options)``, which
    returns the factor of the base and those of the members; adapters are then summed as low-rank
    matrices. A method may have ``problems(options)``, which returns what is wrong with the members' options
    together, one sentence each, and ``share(options)``, the weight of a member in rows of the
    vocabulary that not all models have (``options.weight`` unless given).
    """

    Options: ClassVar[type[BaseModel]]
    """Merge-wide options, the keys of ``parameters``."""

    MemberOptions: ClassVar[type[BaseModel]]
    """Options of each model, beside its ``model`` key; ``parameters`` may hold values for all."""

    needs_base: ClassVar[bool]
    """Whether the method works on differences from ``base_model``."""

    def merge(self, group: Group) -> torch.Tensor:
        """Return the merged tensor, of the inputs' shape and of ``group.dtype``."""
        ...


def share(options: Any) -> float:
    """Return a member's weight; 1 where its method has none."""
    return float(getattr(options, "weight", 1.0))
