"""The rows of a data set while the host tokenises them: every row is counted, and long rows follow one rule.

Rows are tokenised whole and fitted to ``cutoff_len`` first; the host's own processor then packs or collects
what is left, so ``packing`` and ``predict_with_generate`` see the same rows as a plain training.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from pyarrow import compute

from slm_plugin.data.long_rows import cut_length
from slm_plugin.errors import DataError
from slm_plugin.host import runtime

KEPT, CUT, LONG, EMPTY = range(4)
_UNLIMITED = 1 << 40
_WARN_SHARE = 0.05
_FIRST_WITHOUT_BLANKS = 0x2E80
"""First code point of the scripts that write words without blanks between them."""
_TOKENS = ("input_ids", "chosen_input_ids", "rejected_input_ids")
"""Columns of token ids: of conversations and texts, or of the two answers of a preference row."""


def patch(loader: Any) -> None:
    """Fit rows before the host's processors see them, and tell converters the names of their data sets."""
    stock, make_processor = loader._get_preprocessed_dataset, loader._get_dataset_processor
    merge, list_data_sets = loader._get_merged_dataset, loader.get_dataset_list

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
        if active is None or dataset is None:
            return stock(dataset, data_args, training_args, stage, template, tokenizer, processor, is_eval)
        name = getattr(dataset, "slm_name", None) or _name(data_args, is_eval)
        n_rows = len(dataset) if hasattr(dataset, "__len__") else 0
        if stage == "pt":
            # the host takes the first turn of every row, and an empty row has none
            dataset = dataset.filter(_has_prompt)
        try:
            if stage == "sft":
                generates = bool(training_args.predict_with_generate and is_eval)
                uncut = make_processor(data_args, stage, template, tokenizer, processor, do_generate=generates)
                fitter = RowFitter.make(uncut, active, generates)
                dataset, name = _planned(dataset, name, active)
                dataset = _fitted(dataset, fitter, data_args, training_args, name)
            result = stock(dataset, data_args, training_args, stage, template, tokenizer, processor, is_eval)
        except (StopIteration, IndexError, RuntimeError) as error:
            if _is_empty(dataset) or "Cannot find valid samples" in str(error) or isinstance(error, StopIteration):
                among = f" that fits cutoff_len {data_args.cutoff_len}" if data_args.streaming else ""
                raise DataError(f"data set {name!r} has no usable row{among}.") from None
            raise
        if stage != "sft":
            return _report(n_rows, dataset, result, data_args, active, name)
        if data_args.packing and not data_args.streaming:
            runtime.say(f"{name}: {len(dataset)} rows packed into {len(result)} sequences")
        return result

    @functools.wraps(make_processor)
    def _get_dataset_processor(data_args: Any, stage: str, *args: Any, **kwargs: Any) -> Any:
        made = make_processor(data_args, stage, *args, **kwargs)
        return FittedRows(made) if stage == "sft" and runtime.active() is not None else made

    @functools.wraps(merge)
    def _get_merged_dataset(dataset_names: Any, *args: Any, **kwargs: Any) -> Any:
        found = merge(dataset_names, *args, **kwargs)
        # a name is lost only if val_size splits the rows
        named = found.items() if isinstance(found, dict) else [(", ".join(dataset_names or ()), found)]
        for name, rows in named:
            if rows is not None:
                rows.slm_name = name
        return found

    @functools.wraps(list_data_sets)
    def get_dataset_list(dataset_names: Any, dataset_dir: Any) -> Any:
        found = list_data_sets(dataset_names, dataset_dir)
        for name, attributes in zip(dataset_names or (), found, strict=True):
            if attributes.formatting.startswith("slm_"):
                attributes.slm_name = name
        return found

    loader._get_preprocessed_dataset = _get_preprocessed_dataset
    loader._get_dataset_processor = _get_dataset_processor
    loader._get_merged_dataset = _get_merged_dataset
    loader.get_dataset_list = get_dataset_list


def _planned(dataset: Any, name: str, active: runtime.Active) -> tuple[Any, str]:
    """Return the rows of a replay source that training visits, of those that are not empty, and what to call them."""
    if active.row_plan is None:
        return dataset, name
    prompts, responses = (dataset.with_format("arrow")[key][:] for key in ("_prompt", "_response"))
    n_turns, n_answers = (np.asarray(compute.list_value_length(column)) for column in (prompts, responses))
    places = active.row_plan.choose(np.flatnonzero((n_turns % 2 == 1) & (n_answers == 1)))
    return (dataset, name) if places is None else (dataset.select(places), f"{name} (drawn rows)")


@dataclasses.dataclass
class RowFitter:
    """Tokenises an aligned row and fits it to the limit.

    A plain picklable record: the host's caches are keyed by its content.

    Attributes:
        processor: The host's processor, told not to cut.
        limit: Longest row in tokens; the longest prompt if ``generates``. With packing the host takes 1 off it.
        rule: ``drop`` or ``cut``.
        first_unit_id: Token id of unit 0.
        end_unit_id: First id behind the units.
        generates: Whether the model will generate the answers, which are then only compared with.
    """

    processor: Any
    limit: int
    rule: str
    first_unit_id: int
    end_unit_id: int
    generates: bool

    @classmethod
    def make(cls, processor: Any, active: runtime.Active, generates: bool) -> RowFitter:
        """Return the fitter for one of the host's processors."""
        units, limit = active.vocabulary, processor.data_args.cutoff_len
        span = (units.first_id, units.end_id) if units else (0, 0)
        return cls(
            _changed(processor, cutoff_len=_UNLIMITED), limit, active.config.block.long_samples, *span, generates
        )

    def __call__(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """Return token ids, labels, the length before any cut, and whether the row is kept."""
        prompt, response = row["_prompt"], row["_response"]
        if len(prompt) % 2 != 1 or not (len(response) == 1 or self.generates):
            return _outcome(EMPTY, 0)
        ids, labels = self._encode(row)
        length = len(ids)
        if length <= self.limit:
            return _outcome(KEPT, length, ids, labels)
        if self.rule == "cut":
            shorter = self._shortened(row) or self._cut(row, ids, labels)
            if shorter is not None:
                return _outcome(CUT, length, *shorter)
        return _outcome(LONG, length)

    def _encode(self, row: Mapping[str, Any], **changes: Any) -> tuple[list[int], list[int]]:
        processor = _changed(self.processor, **changes) if changes else self.processor
        found: tuple[list[int], list[int]] = processor._encode_data_example(
            prompt=row["_prompt"],
            response=row["_response"],
            system=row["_system"],
            tools=row["_tools"],
            images=row["_images"] or [],
            videos=row["_videos"] or [],
            audios=row["_audios"] or [],
        )
        return found

    def _shortened(self, row: Mapping[str, Any]) -> tuple[list[int], list[int]] | None:
        """Return the row up to the last word with which it fits, for rows that tell which units are which word's."""
        points = json.loads(row.get("_slm_cuts") or "[]")
        fits: tuple[list[int], list[int]] | None = None
        low, high = 0, len(points)
        while low < high:
            middle = (low + high) // 2
            user, assistant = points[middle]
            given = _with_content(row, "_prompt", user) | _with_content(row, "_response", assistant)
            found = self._encode({**row, **given})
            if len(found[0]) <= self.limit:
                fits, low = found, middle + 1
            else:
                high = middle
        return fits

    def _cut(self, row: Mapping[str, Any], ids: list[int], labels: list[int]) -> tuple[list[int], list[int]] | None:
        if self.generates:
            return None
        # with a loss on prompts, labels do not tell where an answer begins
        answers = self._encode(row, train_on_prompt=False)[1] if self.processor.data_args.train_on_prompt else labels
        end = cut_length(ids, answers, self.limit, self._is_unit, self._starts_word)
        return (ids[:end], labels[:end]) if end else None

    def _is_unit(self, token_id: int) -> bool:
        return self.first_unit_id <= token_id < self.end_unit_id

    def _starts_word(self, token_id: int) -> bool:
        tokenizer = self.processor.tokenizer
        first = tokenizer.decode([token_id])[:1]
        if not first or first == "\ufffd":
            return False
        spelt = str(tokenizer.convert_ids_to_tokens(token_id))
        return spelt[0] in "\u0120\u010a\u2581" or first.isspace() or ord(first) >= _FIRST_WITHOUT_BLANKS


def _changed(processor: Any, **changes: Any) -> Any:
    changed = copy.copy(processor)
    changed.data_args = copy.copy(processor.data_args)
    for name, value in changes.items():
        setattr(changed.data_args, name, value)
    return changed


def _with_content(row: Mapping[str, Any], turn: str, length: int) -> dict[str, Any]:
    message = row[turn][0]
    return {turn: [{**message, "content": message["content"][:length].rstrip()}]}


def _outcome(
    status: int, length: int, ids: list[int] | None = None, labels: list[int] | None = None
) -> dict[str, Any]:
    # one id in rows that are dropped, because Arrow cannot tell the type of an empty list
    return {"slm_ids": ids or [0], "slm_labels": labels or [0], "slm_length": length, "slm_status": status}


@dataclasses.dataclass
class FittedRows:
    """The host's processor of a data set whose rows are tokenised and fitted already.

    Attributes:
        processor: The host's.
    """

    processor: Any

    def preprocess_dataset(self, examples: Mapping[str, Any]) -> Any:
        """Pack or collect the rows as the host does."""
        if "slm_ids" not in examples:
            # the rows came past our patch, which hook_check reports
            return self.processor.preprocess_dataset(examples)
        rows = zip(examples["slm_ids"], examples["slm_labels"], strict=True)
        processor = copy.copy(self.processor)
        # the host encodes every row once, in order
        processor._encode_data_example = lambda **row: next(rows)
        return processor.preprocess_dataset(examples)

    def print_data_example(self, example: Mapping[str, Any]) -> None:
        """Print an example as the host does."""
        self.processor.print_data_example(example)


def _fitted(dataset: Any, fitter: RowFitter, data_args: Any, training_args: Any, name: str) -> Any:
    """Tokenise and fit the rows of a data set, and report how many are dropped or cut.

    Raises:
        DataError: No row is left.
    """
    limit = f"cutoff_len {fitter.limit + 1} less 1 for packing" if data_args.packing else f"cutoff_len {fitter.limit}"
    if data_args.streaming:
        runtime.say(f"{name}: streamed; rows longer than {limit} are {_PAST[fitter.rule]}, not counted")
        return dataset.map(fitter).filter(_is_kept)
    rows = dataset.map(
        fitter,
        num_proc=data_args.preprocessing_num_workers,
        load_from_cache_file=(not data_args.overwrite_cache) or (training_args.local_process_index != 0),
        desc="Running tokenizer on dataset",
    )
    columns = rows.with_format("arrow")
    status_N, lengths_N = (np.asarray(columns[key][:], dtype=np.int64) for key in ("slm_status", "slm_length"))
    n_empty, n_cut, n_long = (int((status_N == status).sum()) for status in (EMPTY, CUT, LONG))
    kept_N = np.flatnonzero(status_N <= CUT)
    unfit_N = lengths_N[(status_N == CUT) | (status_N == LONG)]
    if len(kept_N) == 0:
        if not len(unfit_N):
            raise DataError(f"data set {name!r} has no usable row.")
        raise DataError(
            f"data set {name!r} has no row that fits {limit}:"
            f" its rows have {unfit_N.min()} to {unfit_N.max()} tokens. Raise cutoff_len."
        )
    parts = [f"{len(kept_N)} of {len(rows)} rows"]
    if n_empty:
        parts.append(f"{n_empty} dropped as empty or invalid")
    if n_cut:
        parts.append(f"{n_cut} longer than {limit} and cut at the end of a word")
    if n_long:
        why = " because they cannot be cut" if fitter.rule == "cut" else ""
        parts.append(f"{n_long} longer than {limit} and dropped{why}")
    runtime.say(f"{name}: {', '.join(parts)}")
    share = len(unfit_N) / len(rows)
    if share > _WARN_SHARE:
        runtime.say(
            f"warning: {share:.0%} of the rows of {name} are longer than {limit};"
            f" the longest has {unfit_N.max()} tokens. Raise cutoff_len, or use shorter recordings."
        )
    return rows if len(kept_N) == len(rows) else rows.select(kept_N)


_PAST = {"drop": "dropped", "cut": "cut, or dropped if they cannot be cut"}


def _is_kept(row: Mapping[str, Any]) -> bool:
    return bool(row["slm_status"] <= CUT)


def _name(data_args: Any, is_eval: bool) -> str:
    """Return the names of the data sets that are being tokenised."""
    if not is_eval:
        return ", ".join(data_args.dataset or [])
    if data_args.eval_dataset:
        return ", ".join(data_args.eval_dataset)
    return f"{', '.join(data_args.dataset or [])} (val_size)"


def _is_empty(dataset: Any) -> bool:
    return hasattr(dataset, "__len__") and len(dataset) == 0


def _has_prompt(row: dict[str, Any]) -> bool:
    return bool(row["_prompt"])


def _report(n_rows: int, dataset: Any, result: Any, data_args: Any, active: runtime.Active, name: str) -> Any:
    """Count, and drop by ``long_samples``, rows of stages whose rows the host fits itself: texts and preferences."""
    limit, rule = data_args.cutoff_len, active.config.block.long_samples
    done = "dropped" if rule == "drop" else "cut by LLaMA-Factory"
    if data_args.streaming:
        if rule == "drop":
            result = result.filter(functools.partial(_shorter, limit=limit))
        runtime.say(f"{name}: streamed; samples of cutoff_len {limit} tokens or more are {done}, not counted")
        return result
    lengths_N = _lengths(result)
    long_N = lengths_N >= limit
    if rule == "drop" and long_N.any() and not data_args.packing:
        result = result.select(np.flatnonzero(~long_N))
    dropped = n_rows - (len(dataset) if data_args.packing else len(lengths_N))
    parts = [f"{len(result)} of {n_rows} rows"]
    if data_args.packing:
        parts = [f"{len(dataset)} rows packed into {len(result)} sequences"]
    if dropped:
        parts.append(f"{dropped} dropped as empty or invalid")
    if long_N.any() and not data_args.packing:
        parts.append(f"{int(long_N.sum())} reached cutoff_len {limit} and were {done}")
    runtime.say(f"{name}: {', '.join(parts)}")
    if len(result) == 0:
        raise DataError(f"data set {name!r} has no row shorter than cutoff_len {limit}.")
    return result


def _lengths(result: Any) -> np.ndarray:
    """Return the tokens of every row, ``(n_rows,)``; of the longer answer in preference rows."""
    table = result.with_format("arrow")
    columns = [name for name in _TOKENS if name in result.column_names]
    return np.max([[len(ids) for ids in table[name][:]] for name in columns], axis=0)


def _shorter(row: dict[str, Any], limit: int) -> bool:
    return max(len(row[name]) for name in _TOKENS if name in row) < limit
