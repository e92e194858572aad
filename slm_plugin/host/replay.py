"""Loads the pools that mitigations ask for through the host and mixes them after tokenisation."""

from __future__ import annotations

import copy
import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from datasets import IterableDataset, concatenate_datasets, interleave_datasets

from slm_plugin.data.mixing import MixedDataset, Source, draw, quota, stream_probabilities
from slm_plugin.errors import DataError
from slm_plugin.host import runtime
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
        module = load(data_args, "the current stage")
        wishes = [wish for part in active.hooks.hook.slm_mix_samples(run=active.run) for wish in part or ()]
        if not wishes or "train_dataset" not in module:
            return module
        pools = [load(_pool_arguments(data_args, wish), wish.dataset)["train_dataset"] for wish in wishes]
        module["train_dataset"] = _mix(module["train_dataset"], wishes, pools, training_args.seed, active)
        return module

    return wrapped


def _pool_arguments(data_args: Any, wish: PoolDraw) -> Any:
    arguments = copy.copy(data_args)
    arguments.dataset, arguments.eval_dataset = [wish.dataset], None
    arguments.val_size, arguments.max_samples, arguments.interleave_probs = 0.0, None, None
    if arguments.tokenized_path:
        arguments.tokenized_path = f"{str(arguments.tokenized_path).rstrip('/')}-replay-{wish.dataset}"
    return arguments


def _mix(current: Any, wishes: list[PoolDraw], pools: list[Any], seed: int, active: runtime.Active) -> Any:
    if isinstance(current, IterableDataset):
        probabilities = stream_probabilities([wish.ratio for wish in wishes])
        active.facts["replay_probability"] = {
            wish.dataset: probability for wish, probability in zip(wishes, probabilities[1:], strict=True)
        }
        runtime.say(f"replay per draw: {active.facts['replay_probability']}")
        endless = [pool.repeat(None) for pool in pools]
        return interleave_datasets(
            [current, *endless], probabilities=probabilities, seed=seed, stopping_strategy="first_exhausted"
        )
    sources = [
        Source(wish.dataset, pool, quota(wish.ratio, len(current)), wish.resample)
        for wish, pool in zip(wishes, pools, strict=True)
    ]
    for source in sources:
        if len(source.rows) == 0:
            raise DataError(f"replay source {source.name!r} has no rows.")
    active.facts["replay"] = {source.name: source.n_rows for source in sources}
    texts = [f"{s.name} {s.n_rows} of {len(s.rows)} ({s.resample})" for s in sources]
    runtime.say(f"replay: {len(current)} rows of the current stage + {', '.join(texts)}")
    if any(source.resample == "epoch" for source in sources):
        return MixedDataset(current, sources, seed)
    drawn = [source.rows.select(draw(len(source.rows), source.n_rows, seed, source.name)) for source in sources]
    return concatenate_datasets([current, *drawn]).shuffle(seed=seed)


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
