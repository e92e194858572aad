"""The host's supervised training with the hooks of a stage in it."""

from __future__ import annotations

from typing import Any

from slm_plugin.host.replay import with_replay
from slm_plugin.host.trainer import with_hooks


def patch(workflow: Any) -> None:
    """Wrap where the workflow gets its data and its trainer from."""
    workflow.get_dataset = with_replay(workflow.get_dataset)
    workflow.CustomSeq2SeqTrainer = with_hooks(workflow.CustomSeq2SeqTrainer)
