"""The stage x skill matrix: score of each skill after each stage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from slm_plugin.records import Score


@dataclass
class Matrix:
    """Scores by stage and skill.

    Attributes:
        skills: Columns, in order.
        stages: Rows, in order.
        scores: ``scores[i][j]`` is skill j after stage i; None where it was not measured.
        n: Items behind each skill's score.
        better: Which direction of each skill is an improvement.
        notes: What each skill's latest score is to be read by, such as the recogniser's own error rate.
    """

    skills: Sequence[str]
    stages: list[str] = field(default_factory=list)
    scores: list[list[float | None]] = field(default_factory=list)
    n: dict[str, int] = field(default_factory=dict)
    better: dict[str, Literal["higher", "lower"]] = field(default_factory=dict)
    notes: dict[str, Mapping[str, float]] = field(default_factory=dict)

    def add(self, stage: str, scores: Mapping[str, Score]) -> None:
        """Append the row of a stage."""
        self.stages.append(stage)
        self.scores.append([scores[skill].value if skill in scores else None for skill in self.skills])
        for skill, score in scores.items():
            self.n[skill] = score.n
            self.better[skill] = score.better
            if score.notes:
                self.notes[skill] = score.notes

    def value(self, stage: str, skill: str) -> float | None:
        """Return one cell; None where it was not measured."""
        if stage not in self.stages or skill not in self.skills:
            return None
        return self.scores[self.stages.index(stage)][list(self.skills).index(skill)]

    def as_json(self) -> dict[str, Any]:
        """Return the form of ``matrix.json``."""
        return {
            "stages": self.stages,
            "skills": list(self.skills),
            "scores": self.scores,
            "n": self.n,
            "better": self.better,
        }
