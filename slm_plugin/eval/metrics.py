"""Forgetting as numbers, from the stage x skill matrix.

``R[i][j]`` is the score on skill j after stage i. Stage 0 is the text LLM before any stage. Skill j is
*learned* at stage ``learned[j]``: text skills at 0, listening at the ASR stage, and so on. Scores where
lower is better (error rates) are negated first, so that in every formula more is better.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from slm_plugin.errors import DataError


@dataclass(frozen=True)
class Trajectory:
    """Scores of the skills over the stages, as the formulas need them.

    Attributes:
        scores_SK: ``(stages, skills)`` floats, NaN where not measured; error rates negated.
        learned: Row in which each skill is learned.
    """

    scores_SK: np.ndarray
    learned: tuple[int, ...]

    @classmethod
    def of(
        cls,
        scores: Sequence[Sequence[float | None]],
        skills: Sequence[str],
        better: Mapping[str, str],
        learned: Mapping[str, int],
    ) -> Trajectory:
        """Make a trajectory from a matrix.

        Args:
            scores: Rows of the matrix, None where not measured.
            skills: Names of the columns.
            better: ``higher`` or ``lower`` by skill.
            learned: Row in which each skill is learned.

        Raises:
            DataError: A skill has no row in which it is learned, or the row does not exist.
        """
        for skill in skills:
            if not 0 <= learned.get(skill, -1) < len(scores):
                raise DataError(f"it is not said after which of the {len(scores)} stages {skill!r} is learned.")
        values = np.array([[np.nan if cell is None else cell for cell in row] for row in scores], dtype=np.float64)
        signs = np.array([-1.0 if better[skill] == "lower" else 1.0 for skill in skills])
        return cls(values.reshape(len(scores), len(skills)) * signs, tuple(learned[skill] for skill in skills))

    @property
    def last(self) -> np.ndarray:
        """Scores after the last stage, ``(skills,)``."""
        return np.asarray(self.scores_SK[-1])


def average_score(trajectory: Trajectory) -> float:
    """Return ACC, the mean score over all skills after the last stage: ``mean_j R[T, j]``.

    Source: arXiv 1706.08840, eq. 2.
    """
    return float(np.nanmean(trajectory.last))


def backward_transfer(trajectory: Trajectory) -> float:
    """Return BWT, how later stages changed earlier skills: ``mean over j of R[T, j] - R[learned j, j]``.

    The mean is over the skills learned before the last stage; negative means forgetting.

    Source: arXiv 1706.08840, eq. 3.
    """
    pairs = [
        trajectory.last[skill] - trajectory.scores_SK[row, skill]
        for skill, row in enumerate(trajectory.learned)
        if row < len(trajectory.scores_SK) - 1
    ]
    return float(np.nanmean(pairs)) if pairs else float("nan")


def forgetting(trajectory: Trajectory) -> float:
    """Return the mean drop from each skill's best earlier score: ``mean over j of max_{l<T} R[l, j] - R[T, j]``.

    The mean is over the skills learned before the last stage, the maximum over the stages from the one that
    taught the skill to the last but one.

    Source: arXiv 1801.10112, eq. 4.
    """
    drops = [
        np.nanmax(trajectory.scores_SK[row:-1, skill]) - trajectory.last[skill]
        for skill, row in enumerate(trajectory.learned)
        if row < len(trajectory.scores_SK) - 1 and not np.isnan(trajectory.scores_SK[row:-1, skill]).all()
    ]
    return float(np.nanmean(drops)) if drops else float("nan")


def forward_transfer(trajectory: Trajectory, chance: Sequence[float]) -> float:
    """Return FWT, what was known of a skill before its stage: ``mean over j of R[learned j - 1, j] - chance_j``.

    The mean is over the skills learned after stage 0.

    Args:
        trajectory: The scores.
        chance: Score of an untrained model on each skill, in the direction of the skill's own score negated
            where lower is better.

    Source: arXiv 1706.08840, eq. 4.
    """
    gains = [
        trajectory.scores_SK[row - 1, skill] - chance[skill] for skill, row in enumerate(trajectory.learned) if row > 0
    ]
    return float(np.nanmean(gains)) if gains and not np.isnan(gains).all() else float("nan")


def forget_percent(before: Sequence[float], after: Sequence[float]) -> float:
    """Return how much error rates on the original test sets grew: ``100 * (mean after / mean before - 1)``.

    Args:
        before: Error rates before, one per test set, as shares or in per cent.
        after: Error rates after, in the same order and unit.

    Raises:
        DataError: The lists differ in length or are empty, or the mean before is not above 0.

    Source: slides "Parameter Averaging is All You Need to Prevent Forgetting"; arXiv 2305.09681.
    """
    if len(before) != len(after) or not before:
        raise DataError(f"Forget % needs as many error rates before as after, got {len(before)} and {len(after)}.")
    mean = float(np.mean(before))
    if not mean > 0:
        raise DataError(f"Forget % is relative to the error rate before, which must be above 0, got {mean}.")
    return 100 * (float(np.mean(after)) / mean - 1)
