"""Loads the pools that mitigations ask for through the host and mixes them after tokenisation."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from datasets import Dataset, IterableDataset, concatenate_datasets, interleave_datasets

from slm_plugin.data.mixing import (
    MixedDataset,
    Source,
    Surprise,
    draw,
    quota,
    shuffled_passes,
    spread,
    stream_probabilities,
)
from slm_plugin.data.planned import PlannedRows, RowPlan
from slm_plugin.data.sourced import SourcedDataset, marked
from slm_plugin.errors import DataError
from slm_plugin.host import runtime, token_cache
from slm_plugin.host.sampling import count_positions, refuse, scheduled
from slm_plugin.records import PoolDraw


def with_replay(get_dataset: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap the host's ``get_dataset``: every pool goes through it, with its caches and process order."""

    @functools.wraps(get_dataset)
    def wrapped(
        template: Any,
        model_args: Any,
        data_args: Any,
        training_args: Any,
        stage: str,
        tokenizer: Any,
        processor: Any = None,
    ) -> Any:
        def load(arguments: Any, name: str) -> Any:
            form = (stage, bool(training_args.predict_with_generate))
            is_ready = token_cache.is_ready(arguments, tokenizer, name, *form)
            module = get_dataset(template, model_args, arguments, training_args, stage, tokenizer, processor)
            if arguments.tokenized_path and not is_ready and training_args.should_save:
                token_cache.sign(arguments, tokenizer, *form)
            return module

        def load_pool(arguments: Any, wish: PoolDraw, plan: RowPlan | None) -> Any:
            assert active is not None
            active.row_plan = plan
            try:
                rows = load(arguments, wish.dataset)["train_dataset"]
            except DataError:
                if plan is None or plan.numbers_N is None:
                    raise
                rows = ()
            finally:
                active.row_plan = None
            if plan is None or plan.numbers_N is None:
                return rows
            if len(rows) == len(plan.numbers_N):
                return PlannedRows(rows, plan.numbers_N, plan.length)
            runtime.say(f"replay: drawn rows of {wish.dataset} do not fit, so all of its rows are tokenised")
            return load_pool(arguments, wish, None)

        active = runtime.active()
        if active is None:
            return get_dataset(template, model_args, data_args, training_args, stage, tokenizer, processor)
        wishes = [wish for part in active.hooks.hook.slm_mix_samples(run=active.run) for wish in part or ()]
        mark = any(getattr(part, "wants_sources", False) for part in active.config.instances)
        refuse(wishes, mark, data_args, training_args)
        module = load(data_args, "the current stage")
        if "train_dataset" not in module:
            return module
        current = module["train_dataset"]
        if wishes:
            plans = _row_plans(current, wishes, data_args, training_args)
            pools = [
                load_pool(_pool_arguments(data_args, wish), wish, plan)
                for wish, plan in zip(wishes, plans, strict=True)
            ]
            module["train_dataset"] = _mix(current, wishes, pools, training_args, active, mark)
        elif mark:
            module["train_dataset"] = _marked_stream(current, 0) if _streamed(current) else _marked(current)
        return module

    return wrapped


def _pool_arguments(data_args: Any, wish: PoolDraw) -> Any:
    arguments = copy.copy(data_args)
    arguments.dataset, arguments.eval_dataset = [wish.dataset], None
    arguments.val_size, arguments.max_samples, arguments.interleave_probs = 0.0, None, None
    if arguments.tokenized_path:
        arguments.tokenized_path = f"{str(arguments.tokenized_path).rstrip('/')}-replay-{wish.dataset}"
    return arguments


def _row_plans(current: Any, wishes: Sequence[PoolDraw], data_args: Any, training_args: Any) -> list[RowPlan | None]:
    """Return which rows of each source to tokenise; None for all of them.

    The draws are functions of the seed and the length of a source, so that only the drawn rows need be tokenised.
    All rows are needed by a choice by loss, for packs, and in a saved tokenised data set, which later runs share.
    """
    if _streamed(current) or data_args.packing or data_args.tokenized_path:
        return [None] * len(wishes)
    n_epoch = len(current) + sum(quota(wish.ratio, len(current)) for wish in wishes)
    # one epoch more than is begun
    n_epochs = -(-count_positions(n_epoch, training_args) // n_epoch) + 1
    plans: list[RowPlan | None] = []
    for wish in wishes:
        n_rows = quota(wish.ratio, len(current))
        resampled = wish.resample == "epoch"
        if wish.pick == "surprise" or (resampled and wish.schedule is not None):
            plans.append(None)
            continue
        n_drawn = n_rows * n_epochs if resampled else n_rows
        plans.append(RowPlan(functools.partial(_drawn, n_drawn=n_drawn, seed=training_args.seed, name=wish.dataset)))
    return plans


def _drawn(n_pool: int, n_drawn: int, seed: int, name: str) -> np.ndarray:
    return shuffled_passes(n_pool, 0, n_drawn, seed, name)


def _streamed(rows: Any) -> bool:
    return isinstance(rows, IterableDataset)


def _marked(current: Any) -> SourcedDataset:
    return SourcedDataset(current, np.zeros(len(current), dtype=np.int64))


def _marked_stream(rows: Any, source: int) -> Any:
    return rows.map(functools.partial(marked, source=source))


def _mix(
    current: Any, wishes: list[PoolDraw], pools: list[Any], training_args: Any, active: runtime.Active, mark: bool
) -> Any:
    seed = training_args.seed
    if _streamed(current):
        return _mix_streams(current, wishes, pools, seed, active, mark)
    sources = [
        Source(wish.dataset, pool, quota(wish.ratio, len(current)), wish.resample, _surprise(wish))
        for wish, pool in zip(wishes, pools, strict=True)
    ]
    for source in sources:
        if len(source.rows) == 0:
            raise DataError(f"replay source {source.name!r} has no rows.")
    active.facts["replay"] = {source.name: source.n_rows for source in sources}
    texts = [f"{s.name} {s.n_rows} of {len(s.rows)} ({s.resample})" for s in sources]
    noun = "rows"
    if active.data_args.packing:
        # a ratio is then one of packed sequences, each of several rows
        noun = active.facts["replay_counts"] = "packed sequences"
    runtime.say(f"replay: {len(current)} {noun} of the current stage + {', '.join(texts)}")
    if any(wish.schedule for wish in wishes):
        return scheduled(current, sources, wishes, training_args, active, mark)
    if any(source.resample == "epoch" or source.surprise for source in sources):
        return MixedDataset(current, sources, seed, mark, active.keeps_order)
    drawn = [source.rows.select(draw(len(source.rows), source.n_rows, seed, source.name)) for source in sources]
    counts = [len(current), *(source.n_rows for source in sources)]
    mixed = concatenate_datasets([current, *drawn])
    if active.keeps_order:
        streams_N = spread(counts)
        mixed = mixed.select(np.argsort(np.argsort(streams_N, kind="stable")))
        return SourcedDataset(mixed, streams_N) if mark else mixed
    mixed = mixed.shuffle(seed=seed)
    if not mark:
        return mixed
    streams_N = np.repeat(np.arange(len(sources) + 1), counts)
    return SourcedDataset(mixed, Dataset.from_dict({"stream": streams_N}).shuffle(seed=seed)["stream"])


def _surprise(wish: PoolDraw) -> Surprise | None:
    return Surprise(wish.candidates, wish.temperature) if wish.pick == "surprise" else None


def _mix_streams(
    current: Any, wishes: list[PoolDraw], pools: list[Any], seed: int, active: runtime.Active, mark: bool
) -> Any:
    probabilities = stream_probabilities([wish.ratio for wish in wishes])
    active.facts["replay_probability"] = {
        wish.dataset: probability for wish, probability in zip(wishes, probabilities[1:], strict=True)
    }
    runtime.say(f"replay per draw: {active.facts['replay_probability']}")
    streams = [current, *(pool.repeat(None) for pool in pools)]
    if mark:
        streams = [_marked_stream(rows, number) for number, rows in enumerate(streams)]
    return interleave_datasets(streams, probabilities=probabilities, seed=seed, stopping_strategy="first_exhausted")
