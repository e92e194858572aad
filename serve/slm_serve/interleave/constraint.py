"""Constraints on text and units, kept by dropping what breaks them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

Mode = Literal["text", "units", "ratio"]

PROCESSOR = "slm_serve.interleave.processor:InterleaveProcessor"
"""What vLLM's ``--logits-processors`` calls the processor that keeps to constraints."""


@dataclass(frozen=True)
class Constraint:
    """What an answer may consist of.

    Attributes:
        mode: ``text`` alone, ``units`` alone, or both by ``ratio``.
        n_text: Text tokens of a round, where the mode is ``ratio``.
        n_units: Units that follow them.
    """

    mode: Mode
    n_text: int = 0
    n_units: int = 0

    def wants_unit(self, position: int) -> bool:
        """Tell whether the token at a position of the answer is to be a unit.

        Example: with 1 text token and 2 units a round, positions 0 to 5 give no, yes, yes, no, yes, yes.
        """
        if self.mode == "ratio":
            return position % (self.n_text + self.n_units) >= self.n_text
        return self.mode == "units"


class Dropper:
    """Passes on the tokens that keep to a constraint: the earliest ones that do, in their order.

    Args:
        constraint: None passes everything on.
        is_unit: Tells units from text.
        special: Ids that are no text, such as the end of a turn; those that are no units always pass.
    """

    def __init__(
        self, constraint: Constraint | None, is_unit: Callable[[int], bool], special: frozenset[int] = frozenset()
    ) -> None:
        self._constraint = constraint
        self._is_unit = is_unit
        self._special = special
        self._position = 0

    def feed(self, ids: Sequence[int]) -> list[int]:
        """Take further ids; return those that stay."""
        if self._constraint is None:
            return list(ids)
        kept = []
        for token_id in ids:
            is_unit = self._is_unit(token_id)
            if not is_unit and token_id in self._special:
                kept.append(token_id)
            elif is_unit == self._constraint.wants_unit(self._position):
                kept.append(token_id)
                self._position += 1
        return kept


def engine_arguments(constraint: Constraint, first_unit_id: int, unit_count: int, end_id: int) -> dict[str, str | int]:
    """Return what a request to vLLM carries for :mod:`slm_serve.interleave.processor`."""
    return {
        "slm_mode": constraint.mode,
        "slm_text": constraint.n_text,
        "slm_units": constraint.n_units,
        "slm_first": first_unit_id,
        "slm_count": unit_count,
        "slm_end": end_id,
    }
