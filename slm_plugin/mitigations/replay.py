"""Experience replay: train on a few rows of the earlier tasks along with the current one.

Source: arXiv 2505.17496, section on experience replay (5 % of each earlier task).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

from pydantic import Field, field_validator

from slm_plugin.hookspecs import hookimpl
from slm_plugin.records import PoolDraw
from slm_plugin.strict import Strict


class Replay:
    """Draws ``floor(ratio * rows of the current stage)`` rows from each source.

    Args:
        options: Sources with their ratios, and when to draw.
    """

    class Options(Strict):
        """Options of ``replay``."""

        sources: dict[str, float] = Field(min_length=1)
        """Ratio by data set name in ``dataset_info.json``; 0 leaves training bit-identical."""

        resample: Literal["once", "epoch"] = "once"
        """``once``: the same rows in every epoch. ``epoch``: afresh each epoch, unseen rows first."""

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
        return [
            PoolDraw(name, ratio, self.options.resample) for name, ratio in self.options.sources.items() if ratio > 0
        ]


@hookimpl
def slm_register_mitigations(register: Callable[[str, type], None]) -> None:
    """Offer ``replay``."""
    register("replay", Replay)
