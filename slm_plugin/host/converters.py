"""Data-set formats ``slm_<stage>`` of ``dataset_info.json``."""

from __future__ import annotations

import dataclasses
import functools
import sys
from collections.abc import Mapping
from typing import Any

from slm_plugin.errors import ConfigError, Problem
from slm_plugin.host import runtime, workflows
from slm_plugin.records import Sample
from slm_plugin.vocabulary import DEFAULT_UNIT_COUNT

PREFIX = workflows.PREFIX


@dataclasses.dataclass
class StageConverter:
    """Turns rows into the host's aligned form by asking a stage.

    A plain picklable record: the host's caches are keyed by its content.

    Attributes:
        dataset_attr: The host's description of the data set.
        data_args: The host's data arguments.
        stage: Name of the stage.
        unit_count: Units in the vocabulary.
        host_stage: LLaMA-Factory's stage; ``pt`` makes one continuous text of a row, any other a conversation.
    """

    dataset_attr: Any
    data_args: Any
    stage: str
    unit_count: int
    host_stage: str = "sft"

    def __call__(self, example: Mapping[str, Any]) -> dict[str, Any]:
        """Return the aligned row; an empty one, which the host drops, where the stage gives none."""
        stage = runtime.registry().stages.get(self.stage)()
        if self.host_stage == "pt":
            text = stage.continuous_text(example, self.unit_count)
            # what the host learns in pretraining is the text of the first turn
            sample = Sample(text, "") if text else None
        else:
            sample = stage.sample(example, self.unit_count)
        return {
            "_prompt": [{"role": "user", "content": sample.user}] if sample else [],
            "_response": [{"role": "assistant", "content": sample.assistant}] if sample else [],
            "_system": sample.system if sample else "",
            "_tools": "",
            "_images": None,
            "_videos": None,
            "_audios": None,
        }


def make_converter(dataset_attr: Any, data_args: Any, stage: str) -> StageConverter:
    """Return the converter of one data set, bound to the vocabulary in force and to the host's stage.

    Raises:
        ConfigError: The rows of this format have no form in the host's stage.
    """
    active, host_stage = runtime.active(), runtime.host_stage()
    name = str(getattr(dataset_attr, "dataset_name", dataset_attr))
    workflows.refuse_format(PREFIX + stage, host_stage, name)
    if host_stage == "pt" and not hasattr(runtime.registry().stages.get(stage)(), "continuous_text"):
        text = f"the data set {name!r} has formatting: {PREFIX}{stage}, whose stage has no method continuous_text."
        raise ConfigError([Problem("dataset", f"{text} Use it with stage: sft, or add the method.")])
    count = active.vocabulary.count if active and active.vocabulary else DEFAULT_UNIT_COUNT
    return StageConverter(dataset_attr, data_args, stage, count, host_stage)


def patch(converter: Any) -> None:
    """Register one format per stage through the host's own door."""
    try:
        stages = runtime.registry().stages.names()
    except Exception as error:
        # somebody's broken plugin must not keep people from using the host; a block in a YAML raises it
        sys.stderr.write(f"slm_plugin is off: {type(error).__name__}: {error}\n")
        return
    for stage in stages:
        converter.register_dataset_converter(PREFIX + stage, functools.partial(make_converter, stage=stage))
