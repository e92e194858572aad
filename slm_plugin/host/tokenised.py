"""What happened to the rows of a data set while the host tokenised them: counted, never silent."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from slm_plugin.errors import DataError
from slm_plugin.host import runtime

_TOKENS = ("input_ids", "chosen_input_ids", "rejected_input_ids")
"""Columns of token ids: of conversations and texts, or of the two answers of a preference row."""


def patch(loader: Any) -> None:
    """Count dropped and over-long rows, and drop the latter where ``long_samples: drop`` asks for it."""
    stock = loader._get_preprocessed_dataset

    @functools.wraps(stock)
    def _get_preprocessed_dataset(
        dataset: Any,
        data_args: Any,
        training_args: Any,
        stage: str,
        template: Any,
        tokenizer: Any,
        processor: Any = None,
        is_eval: bool = False,
    ) -> Any:
        active = runtime.active()
        args = (dataset, data_args, training_args, stage, template, tokenizer, processor, is_eval)
        if active is None or dataset is None:
            return stock(*args)
        n_rows = _row_count(dataset)
        if stage == "pt":
            # the host takes the first turn of every row, and an empty row has none
            dataset = dataset.filter(_has_prompt)
            args = (dataset, *args[1:])
        try:
            result = stock(*args)
        except (StopIteration, IndexError, RuntimeError) as error:
            if _is_empty(dataset) or "Cannot find valid samples" in str(error):
                names = ", ".join(data_args.dataset or [])
                raise DataError(f"data set {names!r} has no usable row.") from None
            raise
        return _apply_length_rule(n_rows, dataset, result, data_args, active)

    loader._get_preprocessed_dataset = _get_preprocessed_dataset


def _is_empty(dataset: Any) -> bool:
    return hasattr(dataset, "__len__") and len(dataset) == 0


def _row_count(dataset: Any) -> int:
    return len(dataset) if hasattr(dataset, "__len__") else 0


def _has_prompt(row: dict[str, Any]) -> bool:
    return bool(row["_prompt"])


def _apply_length_rule(n_rows: int, dataset: Any, result: Any, data_args: Any, active: runtime.Active) -> Any:
    limit, rule = data_args.cutoff_len, active.config.block.long_samples
    names = ", ".join(data_args.dataset or []) or "evaluation"
    if data_args.streaming:
        if rule == "drop":
            result = result.filter(functools.partial(_shorter, limit=limit))
        runtime.say(f"{names}: streamed; samples of cutoff_len {limit} tokens or more are {rule}, not counted")
        return result
    lengths = _lengths(result)
    long = lengths >= limit
    if rule == "drop" and long.any() and not data_args.packing:
        result = result.select(np.flatnonzero(~long))
    dropped = n_rows - (len(dataset) if data_args.packing else len(lengths))
    parts = [f"{len(result)} of {n_rows} rows"]
    if dropped:
        parts.append(f"{dropped} dropped as empty or invalid")
    if long.any() and not data_args.packing:
        done = "dropped" if rule == "drop" else "cut"
        parts.append(f"{int(long.sum())} reached cutoff_len {limit} and were {done}")
    runtime.say(f"{names}: {', '.join(parts)}")
    if len(result) == 0:
        raise DataError(f"data set {names!r} has no row shorter than cutoff_len {limit}.")
    return result


def _lengths(result: Any) -> np.ndarray:
    """Return the tokens of every row, ``(n_rows,)``; of the longer answer in preference rows."""
    table = result.with_format("arrow")
    columns = [name for name in _TOKENS if name in result.column_names]
    return np.max([[len(ids) for ids in table[name][:]] for name in columns], axis=0)


def _shorter(row: dict[str, Any], limit: int) -> bool:
    return max(len(row[name]) for name in _TOKENS if name in row) < limit
