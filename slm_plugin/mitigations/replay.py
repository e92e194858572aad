"""Experience replay: train on a few rows of the earlier tasks along with the current one.

For a stage of n rows ``floor(ratio * n)`` rows of each source are drawn.

Source: arXiv 2505.17496, section on experience replay (5 % of each earlier task); schedules and the
choice by surprise are additions.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

from pydantic import Field, field_validator, model_validator

from slm_plugin.hookspecs import hookimpl
from slm_plugin.records import PoolDraw, RatioSchedule
from slm_plugin.strict import Strict


class ScheduleOptions(Strict):
    """How the ratios change over the training, by progress t from 0 (first row) to 1 (last row)."""

    shape: Literal["constant", "linear", "cosine", "step"] = "constant"
    """``constant`` keeps the factor at ``start``; ``linear`` and ``cosine`` go from ``start`` to ``end``;
    ``step`` switches from ``start`` to ``end`` at ``at``."""

    start: float = Field(default=1.0, ge=0, allow_inf_nan=False)
    """Factor on every ratio at t = 0; 1 is the ratio itself, 0 no replay."""

    end: float = Field(default=1.0, ge=0, allow_inf_nan=False)
    """Factor on every ratio at t = 1; as ``start`` it is constant."""

    at: float = Field(default=0.5, ge=0, le=1)
    """Progress at which ``step`` switches, as a share of the training; 0 is ``end`` throughout."""

    @model_validator(mode="after")
    def _uses_every_key(self) -> ScheduleOptions:
        given = self.model_fields_set
        if "shape" not in given and "end" in given and self.end != self.start:
            raise ValueError("end needs shape: linear, cosine or step.")
        if "at" in given and self.shape != "step":
            raise ValueError("at needs shape: step.")
        return self

    @property
    def is_constant(self) -> bool:
        """Whether one factor holds throughout."""
        return self.shape == "constant" or self.start == self.end


class Replay:
    """Draws ``floor(ratio * rows of the current stage)`` rows from each source.

    Args:
        options: Sources with their ratios, when to draw, which rows, and how the ratios change.
    """

    class Options(Strict):
        """Options of ``replay``."""

        sources: dict[str, float] = Field(min_length=1)
        """Ratio by data set name in ``dataset_info.json``; 0 leaves training bit-identical."""

        resample: Literal["once", "epoch"] = "once"
        """``once``: the same rows in every epoch. ``epoch``: afresh each epoch, unseen rows first."""

        schedule: ScheduleOptions | None = None
        """A factor on every ratio that changes over the training, ``{shape: constant | linear | cosine | step,
        start: 1.0, end: 1.0, at: 0.5}`` by progress from 0 to 1; a factor of 1 throughout changes no bit."""

        pick: Literal["uniform", "surprise"] = "uniform"
        """Which rows: ``uniform`` by seeded shuffles, ``surprise`` rather those that the current model finds
        hard, drawn when training starts (or each epoch does)."""

        candidates: int = Field(default=4, ge=1)
        """Rows that ``surprise`` scores per row it draws; 1 draws as ``uniform`` would in kind."""

        temperature: float = Field(default=1.0, ge=0, allow_inf_nan=False)
        """Softness of ``surprise`` in nats of loss per answer token: 0 takes the hardest candidates, large
        values draw from them evenly."""

        @field_validator("sources")
        @classmethod
        def _ratios(cls, sources: dict[str, float]) -> dict[str, float]:
            for name, ratio in sources.items():
                if not (math.isfinite(ratio) and ratio >= 0):
                    raise ValueError(f"the ratio of {name!r} must be 0 or more, got {ratio}.")
            return sources

    def __init__(self, options: Options) -> None:
        self.options = options

    @hookimpl
    def slm_mix_samples(self) -> list[PoolDraw]:
        """Ask for the rows of every source with a ratio above 0."""
        found, schedule = self.options, self.options.schedule
        scale, changing = 1.0, None
        if schedule is not None and schedule.shape != "constant" and not schedule.is_constant:
            changing = RatioSchedule(schedule.shape, schedule.start, schedule.end, schedule.at)
        elif schedule is not None:
            scale = schedule.start
        return [
            PoolDraw(name, ratio * scale, found.resample, changing, found.pick, found.candidates, found.temperature)
            for name, ratio in found.sources.items()
            if ratio * scale > 0
        ]


@hookimpl
def slm_register_mitigations(register: Callable[[str, type], None]) -> None:
    """Offer ``replay``."""
    register("replay", Replay)
