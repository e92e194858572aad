"""A logits processor for vLLM that keeps answers to a constraint: what may not come gets no probability.

vLLM loads it by name (``--logits-processors slm_serve.interleave.processor:InterleaveProcessor``, which
``slm serve --interleave-processor`` adds) and it acts on the requests that carry
:func:`slm_serve.interleave.constraint.engine_arguments`. The end of the turn is always possible.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from vllm.v1.sample.logits_processor import BatchUpdate, LogitsProcessor
from vllm.v1.sample.logits_processor.interface import MoveDirectionality

from slm_serve.interleave.constraint import Constraint

if TYPE_CHECKING:
    from vllm import SamplingParams
    from vllm.config import VllmConfig

_MODES = ("text", "units", "ratio")


class _Row(NamedTuple):
    constraint: Constraint
    first: int
    n_units: int
    end: int
    output: Sequence[int]

    def wants_unit(self) -> bool:
        return self.constraint.wants_unit(len(self.output))


class InterleaveProcessor(LogitsProcessor):
    """See the module.

    Args:
        vllm_config: Not used: every request says what it needs.
        device: Where logits lie.
        is_pin_memory: Not used.
    """

    @classmethod
    def validate_params(cls, sampling_params: SamplingParams) -> None:
        """Refuse a request whose arguments make no constraint.

        Raises:
            ValueError: They do not.
        """
        given = sampling_params.extra_args or {}
        if "slm_mode" in given:
            _row(given, ())

    def __init__(self, vllm_config: VllmConfig, device: torch.device, is_pin_memory: bool) -> None:
        self._device = device
        self._rows: dict[int, _Row] = {}

    def is_argmax_invariant(self) -> bool:
        """Greedy choices change too."""
        return False

    def update_state(self, batch_update: BatchUpdate | None) -> None:
        """Follow requests as they come, go and move in the batch."""
        if batch_update is None:
            return
        for index in batch_update.removed:
            self._rows.pop(index, None)
        for index, params, _, output in batch_update.added:
            given = params.extra_args or {}
            if "slm_mode" in given:
                self._rows[index] = _row(given, output)
            else:
                self._rows.pop(index, None)
        for source, target, direction in batch_update.moved:
            moved, other = self._rows.pop(source, None), self._rows.pop(target, None)
            if moved is not None:
                self._rows[target] = moved
            if other is not None and direction == MoveDirectionality.SWAP:
                self._rows[source] = other

    def apply(self, logits: torch.Tensor) -> torch.Tensor:
        """Take the probability of what may not come; ``logits`` are of shape (requests, vocabulary)."""
        for index, row in self._rows.items():
            last = row.first + row.n_units
            if row.wants_unit():
                end = logits[index, row.end].clone()
                logits[index, : row.first] = -float("inf")
                logits[index, last:] = -float("inf")
                logits[index, row.end] = end
            else:
                logits[index, row.first : last] = -float("inf")
        return logits


def _row(given: dict[str, Any], output: Sequence[int]) -> _Row:
    mode = given["slm_mode"]
    if mode not in _MODES:
        raise ValueError(f"slm_mode must be one of {', '.join(_MODES)}, got {mode!r}.")
    numbers = {}
    for name in ("slm_text", "slm_units", "slm_first", "slm_count", "slm_end"):
        number = given.get(name)
        if not isinstance(number, int) or number < 0:
            raise ValueError(f"{name} must be a whole number of 0 or more, got {number!r}.")
        numbers[name] = number
    if mode == "ratio" and (numbers["slm_text"] < 1 or numbers["slm_units"] < 1):
        raise ValueError("slm_text and slm_units must be 1 or more where slm_mode is 'ratio'.")
    constraint = Constraint(mode, numbers["slm_text"], numbers["slm_units"])
    return _Row(constraint, numbers["slm_first"], numbers["slm_count"], numbers["slm_end"], output)
