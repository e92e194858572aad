"""The runs that the estimates for a CPU were compared with, and how far off the estimates are."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from slm_plugin.doctor.estimate import Training, needs
from slm_plugin.doctor.processor import Processor
from slm_plugin.doctor.shapes import Shapes

FILE = "calibration.json"
"""Written by ``benchmarks/plan.py --write``."""


@dataclass(frozen=True)
class Run:
    """One measured training.

    Attributes:
        name: Its name in the benchmark.
        training: What decides size and work.
        processor: The CPU that it ran on.
        memory: Largest resident memory of its process, in bytes.
        step_seconds: Seconds of a step.
    """

    name: str
    training: Training
    processor: Processor
    memory: float
    step_seconds: float

    def memory_error(self) -> float:
        """Return how far off the estimate of memory is, as a share of what was measured; negative if it is too low."""
        return needs(self.training).memory / self.memory - 1

    def time_error(self) -> float:
        """Return how far off the estimate of time is, as a share of what was measured; negative if it is too low."""
        tokens = float(self.training.batch * self.training.cutoff)
        return self.processor.seconds(self.training, tokens) / self.step_seconds - 1


@dataclass(frozen=True)
class Calibration:
    """All runs.

    Attributes:
        date: When they ran, ISO 8601.
        runs: The runs.
    """

    date: str
    runs: tuple[Run, ...]

    @property
    def memory_error(self) -> float:
        """Return the largest error of an estimate of memory, as a share of what was measured."""
        return max(abs(run.memory_error()) for run in self.runs)

    @property
    def time_error(self) -> float:
        """Return the largest error of an estimate of time, as a share of what was measured."""
        return max(abs(run.time_error()) for run in self.runs)


@cache
def calibration() -> Calibration:
    """Return the runs that are shipped."""
    content = json.loads((files("slm_plugin.doctor") / FILE).read_text(encoding="utf-8"))
    return Calibration(content["date"], tuple(_run(run) for run in content["runs"]))


def _run(content: dict[str, Any]) -> Run:
    training = Training(**{**content["training"], "shapes": Shapes(**content["training"]["shapes"])})
    processor = Processor(**content["processor"])
    return Run(content["name"], training, processor, content["memory_bytes"], content["step_seconds"])
