"""Replay whose mixture changes during a training: what the host must allow for it, and its order of rows."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any

from torch.utils.data import Sampler, SequentialSampler

from slm_plugin.data.mixing import MixedDataset, Source
from slm_plugin.data.schedule import ScheduledDataset
from slm_plugin.errors import ConfigError, Problem
from slm_plugin.host import runtime
from slm_plugin.records import PoolDraw

WHERE = "slm.mitigations"


def keeps_order(training_args: Any, finetuning_args: Any) -> bool:
    """Return whether the host visits the training rows in the order they have.

    ``disable_shuffling`` is the host's own key, ``train_sampling_strategy`` that of transformers.
    """
    return bool(finetuning_args.disable_shuffling) or training_args.train_sampling_strategy == "sequential"


def refuse(wishes: Sequence[PoolDraw], mark: bool, data_args: Any, training_args: Any) -> None:
    """Refuse host options that leave nothing to schedule, to rank or to tell apart.

    Args:
        wishes: What the mitigations ask for.
        mark: Whether a mitigation must know which source a row is from.
        data_args: The host's data arguments.
        training_args: The host's training arguments.

    Raises:
        ConfigError: Lists every such option.
    """
    if not training_args.do_train:
        return
    kinds = {"schedule": any(wish.schedule for wish in wishes)}
    kinds["pick: surprise"] = any(wish.pick == "surprise" for wish in wishes)
    problems = []
    for kind in [name for name, used in kinds.items() if used]:
        if data_args.streaming:
            problems.append(f"replay with {kind} needs rows that can be counted; set streaming: false.")
        if training_args.train_sampling_strategy == "group_by_length":
            problems.append(f"replay with {kind} sets the order of rows; remove train_sampling_strategy.")
    resampled = any(wish.resample == "epoch" for wish in wishes) and not data_args.streaming
    if resampled and not problems and training_args.train_sampling_strategy == "group_by_length":
        problems.append(
            "replay with resample: epoch changes the rows each epoch, and train_sampling_strategy: group_by_length"
            " groups them once, before the first. Use resample: once, or remove train_sampling_strategy."
        )
    if mark and data_args.packing:
        problems.append("one must know which source a row is from, and packing joins rows; set packing: false.")
    if problems:
        raise ConfigError(Problem(WHERE, text) for text in problems)


def scheduled(
    current: Any,
    sources: Sequence[Source],
    wishes: Sequence[PoolDraw],
    training_args: Any,
    active: runtime.Active,
    mark: bool,
) -> ScheduledDataset:
    """Mix the sources by their schedules and record what the whole training draws of each."""
    mixed = ScheduledDataset(
        current,
        sources,
        training_args.seed,
        [wish.ratio for wish in wishes],
        [wish.schedule for wish in wishes],
        functools.partial(count_positions, training_args=training_args),
        mark,
        active.keeps_order,
    )
    active.facts["replay_scheduled"] = mixed.counts()
    drawn = ", ".join(f"{name} {n}" for name, n in mixed.counts().items())
    runtime.say(f"replay by schedule: {drawn} of the {mixed.n_positions} rows of the whole training")
    return mixed


def count_positions(n_rows: int, training_args: Any) -> int:
    """Return how many rows a training visits, with ``n_rows`` an epoch.

    An epoch has ``ceil(n_rows / (batch x processes))`` batches and the host ends after ``max_steps``
    steps, or after ``ceil(num_train_epochs x steps per epoch)``.
    """
    batch = training_args.train_batch_size * training_args.world_size
    n_batches = n_rows // batch if training_args.dataloader_drop_last else math.ceil(n_rows / batch)
    accumulated = training_args.gradient_accumulation_steps
    steps_per_epoch = max(1, math.ceil(n_batches / accumulated))
    n_steps = training_args.max_steps
    if n_steps <= 0:
        n_steps = math.ceil(training_args.num_train_epochs * steps_per_epoch)
    epochs, rest = divmod(n_steps, steps_per_epoch)
    return max(1, epochs * n_rows + min(n_rows, rest * accumulated * batch))


def sampler_for(dataset: Any) -> Sampler[int] | None:
    """Return the sampler of a data set that sets its own order; None for all others."""
    if isinstance(dataset, MixedDataset) and dataset.in_order:
        return SequentialSampler(dataset)
    return None
