"""Asks the stage and the mitigations what they cannot work with, before anything is loaded."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from transformers.integrations.deepspeed import is_deepspeed_zero3_enabled

from slm_plugin.errors import Problem
from slm_plugin.host import runtime


def refusals(active: runtime.Active, by_name: Mapping[str, Any], where: str) -> list[Problem]:
    """Return what the objects of the block refuse, by ``slm_check``.

    Args:
        active: The block in force.
        by_name: The host's parsed argument objects by the name of their class.
        where: Prefix of every problem.
    """
    hook = active.hooks.hook
    draws = [draw for part in hook.slm_mix_samples(run=active.run) for draw in part or ()]
    arguments: dict[str, Any] = {}
    for name in ("ModelArguments", "DataArguments", "TrainingArguments", "FinetuningArguments"):
        arguments |= vars(by_name[name])
    training = by_name["TrainingArguments"]
    run = dataclasses.replace(active.run, saves_checkpoints=training.save_strategy != "no")
    found = hook.slm_check(run=run, arguments=arguments, draws=draws)
    return [Problem(f"{where}.mitigations", text) for part in found for text in part or ()]


def probe_refusals(training: Any, finetuning: Any, where: str) -> list[Problem]:
    """Return why skills cannot be scored during this training.

    Args:
        training: The host's training arguments.
        finetuning: The host's finetuning arguments.
        where: The key.
    """
    found = []
    if finetuning.stage != "sft":
        found.append(f"are scored on the host's stage: sft only, got stage: {finetuning.stage}.")
    if training.fsdp or is_deepspeed_zero3_enabled():
        sharding = "FSDP" if training.fsdp else "DeepSpeed's ZeRO stage 3"
        found.append(
            f"need whole weights on every process, and {sharding} shards them. Use ZeRO stage 2, or plain DDP."
        )
    return [Problem(where, text) for text in found]
