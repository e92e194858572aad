"""Data-set formats ``slm_<stage>`` of ``dataset_info.json``."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import inspect
import json
import sys
from collections.abc import Iterator, Mapping
from typing import Any

import slm_plugin
from slm_plugin.data import rows
from slm_plugin.errors import ConfigError, DataError, Problem, VocabularyError
from slm_plugin.host import runtime, workflows
from slm_plugin.records import Sample
from slm_plugin.vocabulary import DEFAULT_UNIT_COUNT, UnitVocabulary, special_spellings, strip_units

PREFIX = workflows.PREFIX


@dataclasses.dataclass
class StageConverter:
    """Turns rows into the host's aligned form by means of a stage.

    A plain picklable record: the host's caches are keyed by its content.

    Attributes:
        dataset_attr: The host's description of the data set.
        data_args: The host's data arguments.
        stage: Name of the stage.
        unit_count: Units in the vocabulary.
        host_stage: LLaMA-Factory's stage; ``pt`` makes one continuous text of a row, any other a conversation.
        spellings: Special tokens of the tokenizer that texts must not become.
        marks_cuts: Whether the places at which a long sample can be cut are noted.
        code: Digest of the stage's code, so that a change of it is not answered from a cache.
        has_units: Whether the tokenizer has unit tokens.
    """

    dataset_attr: Any
    data_args: Any
    stage: str
    unit_count: int
    host_stage: str = "sft"
    spellings: tuple[str, ...] = ()
    marks_cuts: bool = False
    code: str = ""
    has_units: bool = True

    def __call__(self, example: Mapping[str, Any], number: int | None = None) -> dict[str, Any]:
        """Return the aligned row; an empty one, which is dropped, if the stage makes no sample of it.

        Args:
            example: A row.
            number: Its place in the data set, from 0; None if unknown.

        Raises:
            DataError: The stage cannot use the row; names the data set and the row, counted from 1.
            VocabularyError: A unit is out of range; likewise.
        """
        try:
            return self._aligned(rows.safe(example, self.spellings))
        except Exception as error:
            where = f"data set {self._name!r}" + ("" if number is None else f", row {number + 1}")
            if not isinstance(error, DataError | VocabularyError):
                # a plugin's stage: whatever it raises, with where it did
                error.add_note(f"in {where}")
                raise
            named = type(error)(f"{where}: {error}")
            named.number = number  # type: ignore[union-attr]  # survives the way back from a worker process
            raise named from None

    @property
    def _name(self) -> str:
        return str(getattr(self.dataset_attr, "slm_name", None) or self.dataset_attr)

    def _aligned(self, row: Mapping[str, Any]) -> dict[str, Any]:
        stage = runtime.registry().stages.get(self.stage)()
        if self.host_stage == "pt":
            text = stage.continuous_text(row, self.unit_count)
            # what the host learns in pretraining is the text of the first turn
            sample = Sample(text, "") if text else None
        else:
            sample = stage.sample(row, self.unit_count)
        if (
            sample
            and not self.has_units
            and any(text != strip_units(text) for text in (sample.user, sample.assistant))
        ):
            raise DataError(
                "holds units, but the tokenizer has none, so they would be trained as text."
                " Set slm.units, or start from a units base."
            )
        aligned = {
            "_prompt": [{"role": "user", "content": sample.user}] if sample else [],
            "_response": [{"role": "assistant", "content": sample.assistant}] if sample else [],
            "_system": sample.system if sample else "",
            "_tools": "",
            "_images": None,
            "_videos": None,
            "_audios": None,
        }
        if self.marks_cuts:
            cuts = stage.cuts(row, self.unit_count) if sample and hasattr(stage, "cuts") else ()
            # as text, because Arrow cannot tell the type of an empty list
            aligned["_slm_cuts"] = json.dumps([list(cut) for cut in cuts])
        return aligned


def make_converter(dataset_attr: Any, data_args: Any, stage: str) -> StageConverter:
    """Return the converter of one data set, bound to the vocabulary, the tokenizer and the host's stage.

    Raises:
        ConfigError: The rows of this format have no form in the host's stage.
    """
    active, host_stage = runtime.active(), runtime.host_stage()
    name = str(getattr(dataset_attr, "slm_name", None) or dataset_attr)
    workflows.refuse_format(PREFIX + stage, host_stage, name)
    if host_stage == "pt" and not hasattr(runtime.registry().stages.get(stage)(), "continuous_text"):
        text = f"the data set {name!r} has formatting: {PREFIX}{stage}, whose stage has no method continuous_text."
        raise ConfigError([Problem("dataset", f"{text} Use it with stage: sft, or add the method.")])
    count = active.vocabulary.count if active and active.vocabulary else DEFAULT_UNIT_COUNT
    tokenizer = runtime.loaded_tokenizer()
    # a block that was requested and is not in force was bypassed, which hook_check reports
    bypassed = active is None and runtime.block_requested()
    has_units = bypassed or tokenizer is None or UnitVocabulary.find(tokenizer) is not None
    spellings = special_spellings(active.tokenizer) if active and active.tokenizer is not None else ()
    marks_cuts = active is not None and active.config.block.long_samples == "cut" and host_stage != "pt"
    return StageConverter(
        dataset_attr, data_args, stage, count, host_stage, spellings, marks_cuts, _code(stage), has_units
    )


def _code(stage: str) -> str:
    try:
        source = inspect.getsource(sys.modules[runtime.registry().stages.get(stage).__module__])
    except (OSError, KeyError, TypeError):
        source = ""
    return hashlib.sha256(f"{slm_plugin.__version__} {source}".encode()).hexdigest()[:16]


class _Numbered:
    """A data set as the host's ``align_dataset`` uses it, whose ``map`` tells the converter the number of each row."""

    def __init__(self, dataset: Any) -> None:
        self._dataset = dataset

    def __iter__(self) -> Iterator[Any]:
        return iter(self._dataset)

    def map(self, function: Any, **options: Any) -> Any:
        """Map with row numbers."""
        try:
            return self._dataset.map(function, with_indices=True, **options)
        except (DataError, VocabularyError) as error:
            positions, number = getattr(self._dataset, "_indices", None), getattr(error, "number", None)
            if positions is None or number is None:
                raise
            # a selection of rows, such as the host's num_samples: name the row by its place in the file
            place = positions.column(0)[number].as_py()
            raise type(error)(str(error).replace(f", row {number + 1}: ", f", row {place + 1}: ", 1)) from None


def _advice(data_args: Any) -> str:
    return " LLaMA-Factory streams local files only with dataloader_num_workers: 1 or more." * bool(
        data_args.streaming
    )


def patch(converter: Any) -> None:
    """Register one format per stage through the host's own registry, and number the rows of these formats."""
    try:
        stages = runtime.registry().stages.names()
    except Exception as error:
        # somebody's broken plugin must not keep people from using the host; a block in a YAML raises it
        sys.stderr.write(f"slm_plugin is off: {type(error).__name__}: {error}\n")
        return
    for stage in stages:
        converter.register_dataset_converter(PREFIX + stage, functools.partial(make_converter, stage=stage))
    stock = converter.align_dataset

    @functools.wraps(stock)
    def align_dataset(dataset: Any, dataset_attr: Any, data_args: Any, training_args: Any) -> Any:
        formatting = dataset_attr.formatting
        if not (formatting.startswith(PREFIX) and formatting.removeprefix(PREFIX) in stages):
            return stock(dataset, dataset_attr, data_args, training_args)
        try:
            return stock(_Numbered(dataset), dataset_attr, data_args, training_args)
        except StopIteration:
            name = getattr(dataset_attr, "slm_name", None) or str(dataset_attr)
            raise DataError(f"data set {name!r} has no usable row: it is empty.{_advice(data_args)}") from None

    converter.align_dataset = align_dataset
