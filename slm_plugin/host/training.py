"""LLaMA-Factory's training workflows with the hooks of a stage in them."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from slm_plugin.host import runtime
from slm_plugin.host.replay import with_replay
from slm_plugin.host.trainer import with_hooks

TRAINERS = ("CustomSeq2SeqTrainer", "CustomTrainer", "PairwiseTrainer", "CustomKTOTrainer", "CustomDPOTrainer")
"""Classes of the host's trainers, for the stages sft, pt, rm, kto and dpo."""


def patch(module: Any) -> None:
    """Wrap the trainer and ``get_dataset`` of a workflow, as far as its module holds them."""
    for name in TRAINERS:
        if name in vars(module):
            setattr(module, name, with_hooks(getattr(module, name)))
    if "get_dataset" in vars(module):
        module.get_dataset = _remembered(with_replay(module.get_dataset))


def _remembered(get_dataset: Callable[..., Any]) -> Callable[..., Any]:
    """Keep the training rows that ``get_dataset`` returns, to compare them with those of the trainer."""

    @functools.wraps(get_dataset)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        found, active = get_dataset(*args, **kwargs), runtime.active()
        if active is not None:
            active.train_dataset = found.get("train_dataset")
        return found

    return wrapped
