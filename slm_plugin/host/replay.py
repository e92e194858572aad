"""Loads the pools that mitigations ask for through the host and mixes them after tokenisation."""

from __future__ import annotations

import copy
import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset, IterableDataset, concatenate_datasets, interleave_datasets

from slm_plugin.data.mixing import MixedDataset, Source, Surprise, draw, quota, spread, stream_probabilities
from slm_plugin.data.sourced import SourcedDataset, marked
from slm_plugin.errors import DataError
from slm_plugin.host import runtime
from slm_plugin.host.sampling import refuse, scheduled
from slm_plugin.records import PoolDraw

VOCABULARY_FILE = "slm_vocabulary.json"


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
            _check_tokenised_folder(arguments.tokenized_path, tokenizer, name)
            module = get_dataset(template, model_args, arguments, training_args, stage, tokenizer, processor)
            if arguments.tokenized_path and training_args.should_save:
                _sign_tokenised_folder(Path(arguments.tokenized_path), tokenizer)
            return module

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
            pools = [load(_pool_arguments(data_args, wish), wish.dataset)["train_dataset"] for wish in wishes]
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
    runtime.say(f"replay: {len(current)} rows of the current stage + {', '.join(texts)}")
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


def _vocabulary_record(tokenizer: Any) -> dict[str, int]:
    active = runtime.active()
    units = active.vocabulary if active else None
    return {
        "tokens": len(tokenizer),
        "first_unit_id": units.first_id if units else -1,
        "units": units.count if units else 0,
    }


def _sign_tokenised_folder(folder: Path, tokenizer: Any) -> None:
    """Leave a note beside a saved tokenised data set that says for which vocabulary it is."""
    if folder.is_dir() and not (folder / VOCABULARY_FILE).exists():
        temporary = folder / f".{VOCABULARY_FILE}"
        temporary.write_text(json.dumps(_vocabulary_record(tokenizer)), encoding="utf-8")
        temporary.replace(folder / VOCABULARY_FILE)


def _check_tokenised_folder(folder: str | None, tokenizer: Any, name: str) -> None:
    """Refuse a saved tokenised data set of another vocabulary.

    Raises:
        DataError: Names the folder and both vocabularies.
    """
    path = Path(folder or "") / VOCABULARY_FILE
    if not folder or not path.is_file():
        return
    saved, wanted = json.loads(path.read_text(encoding="utf-8")), _vocabulary_record(tokenizer)
    if saved != wanted:
        raise DataError(
            f"{folder} holds {name} tokenised for another vocabulary ({saved}), this run has {wanted}."
            " Remove the folder or set another tokenized_path."
        )
