"""A base with an adapter folded in, read one tensor at a time and never held as a whole."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from slm_plugin import card
from slm_plugin.adapters.check import require_fits, tied_heads
from slm_plugin.adapters.lora import LoraAdapter
from slm_plugin.adapters.scale import interpolated, interpolated_rows, with_magnitude
from slm_plugin.errors import WeightsError
from slm_plugin.weights.checkpoint import WeightSource


class FoldedCheckpoint:
    """The weights of ``W0 + factor * scale * up @ down``, as PEFT's ``merge_and_unload`` makes them.

    The arithmetic is in float32 with one rounding to the type of the base. Weights trained in full are as
    trained, and have the adapter's shape where it trained further rows; single trained rows replace those
    of the base. It is itself a :class:`~slm_plugin.weights.checkpoint.WeightSource`, so adapters stack.

    Args:
        base: What the adapter was trained on.
        adapter: The adapter.
        factor: Discount of the adapter; 1 is neutral, 0 takes the low-rank updates away.
        interpolate: Whether weights and rows trained in full move toward the base by the same factor
            (unit rows and rows that the base lacks do not); otherwise they are as trained.
        units: ``first_id`` and ``count`` of the units, for adapters whose card has none.

    Raises:
        WeightsError: The base lacks weights of the adapter, or has other shapes.
    """

    def __init__(
        self,
        base: WeightSource,
        adapter: LoraAdapter,
        factor: float = 1.0,
        interpolate: bool = False,
        units: Mapping[str, Any] | None = None,
    ) -> None:
        adapter = adapter.aligned(base.names())
        require_fits(adapter, base)
        self.base = base
        self.adapter = adapter
        self.factor = factor
        self.interpolate = interpolate
        self._units = (card.read(adapter.folder).get("units") or units) if interpolate else None
        self._replaced = set(adapter.replaced()) - set(tied_heads(adapter, base))

    def names(self) -> list[str]:
        """Return the names of all tensors, sorted: those of the base."""
        return self.base.names()

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of a tensor without reading it."""
        return self.adapter.replacement_shape(name) if name in self._replaced else self.base.shape(name)

    def dtype(self, name: str) -> torch.dtype:
        """Return the type of a tensor's elements without reading it: that of the base."""
        return self.base.dtype(name)

    def tensor(self, name: str) -> torch.Tensor:
        """Read a tensor with the adapter folded in, of the shape and type that ``shape`` and ``dtype`` say.

        Raises:
            WeightsError: There is none of that name, a file cannot be read, or the adapter is not finite.
        """
        wanted = self.dtype(name)
        if name in self._replaced:
            weight = self.adapter.replacement(name)
            if self.interpolate:
                weight = interpolated(self.base.tensor(name), weight, self.factor, self._units)
            weight = weight.to(wanted)
        else:
            weight = self.base.tensor(name)
        decomposed, low_rank = self.adapter.decomposed(name), self.adapter.low_rank(name)
        if decomposed is not None:
            weight = with_magnitude(weight, decomposed, self.factor).to(wanted)
        elif low_rank is not None:
            weight = (weight.float() + low_rank.delta(self.factor).reshape(weight.shape)).to(wanted)
        rows = self.adapter.rows(name)
        if rows is not None:
            ids, values = rows
            if max(ids) >= len(weight):
                raise WeightsError(
                    f"the adapter {self.adapter.folder} trains row {max(ids)} of {name!r}, the base has {len(weight)}:"
                    " give the base with units that it was trained on."
                )
            if self.interpolate:
                values = interpolated_rows(weight, ids, values, self.factor, self._units)
            weight = weight.index_copy(0, torch.tensor(ids), values.to(wanted))
        return weight
