"""Which row teaches a skill, and the numbers of forgetting that follow."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping, Sequence

from slm_plugin.errors import DataError
from slm_plugin.eval import metrics
from slm_plugin.report.content import Cell, Forgetting, Learned

DEFINITIONS = {
    "ACC": "mean over skills of the score after the last stage",
    "BWT": "mean over earlier skills of the last score minus the score when learned; negative is forgetting",
    "forgetting": "mean over earlier skills of the best earlier score minus the last; positive is forgetting",
    "FWT": "mean over later skills of the score before the stage that teaches them minus chance",
    "Forget %": "growth of the mean error rate on earlier skills since they were learned",
}
"""One line for each number; error rates count negated in all but the last."""


def learned_rows(
    stages: Sequence[str],
    skills: Sequence[str],
    cells: Sequence[Sequence[Cell | None]],
    given: Mapping[str, str],
    gates: Mapping[str, str],
) -> dict[str, Learned]:
    """Say after which row each skill counts as learned; a skill that was never measured is left out.

    The row that is ``given`` for it, else the row of its gate (a gate is what a stage must reach to count as
    learned), else the first row in which it was measured. Rows that the matrix lacks are passed over.
    """
    found = {}
    for column, skill in enumerate(skills):
        measured = [stage for stage, row in zip(stages, cells, strict=True) if row[column] is not None]
        if not measured:
            continue
        if given.get(skill) in stages:
            found[skill] = Learned(given[skill], "given")
        elif gates.get(skill) in stages:
            found[skill] = Learned(gates[skill], "gate")
        else:
            found[skill] = Learned(measured[0], "first measured")
    return found


def numbers(
    stages: Sequence[str],
    skills: Sequence[str],
    cells: Sequence[Sequence[Cell | None]],
    better: Mapping[str, str],
    learned: Mapping[str, Learned],
    chance: Mapping[str, float],
) -> Forgetting:
    """Return the numbers of :mod:`slm_plugin.eval.metrics` for one matrix.

    Args:
        stages: Rows.
        skills: Columns.
        cells: The matrix.
        better: Direction by skill.
        learned: Row of each skill, from :func:`learned_rows`.
        chance: Score of an untrained model by skill; forward transfer is over skills that have one.
    """
    columns = [(column, skill) for column, skill in enumerate(skills) if skill in learned]
    if not columns:
        return Forgetting(None, None, None, None, None)
    values = [[_value(row[column]) for column, _ in columns] for row in cells]
    names = [skill for _, skill in columns]
    rows = {skill: list(stages).index(learned[skill].stage) for skill in names}
    trajectory = metrics.Trajectory.of(values, names, better, rows)
    signed = [
        (-1.0 if better[skill] == "lower" else 1.0) * chance[skill] if skill in chance else math.nan for skill in names
    ]
    with warnings.catch_warnings():
        # a mean over nothing is no number here, as everywhere
        warnings.simplefilter("ignore", RuntimeWarning)
        return Forgetting(
            acc=_defined(lambda: metrics.average_score(trajectory)),
            bwt=_defined(lambda: metrics.backward_transfer(trajectory)),
            forgetting=_defined(lambda: metrics.forgetting(trajectory)),
            fwt=_defined(lambda: metrics.forward_transfer(trajectory, signed)),
            forget_percent=_defined(lambda: _forget_percent(values, names, better, rows)),
        )


def _forget_percent(
    values: Sequence[Sequence[float | None]], names: Sequence[str], better: Mapping[str, str], rows: Mapping[str, int]
) -> float:
    pairs = [
        (before, after)
        for column, skill in enumerate(names)
        if better[skill] == "lower" and rows[skill] < len(values) - 1
        if (before := values[rows[skill]][column]) is not None and (after := values[-1][column]) is not None
    ]
    return metrics.forget_percent([before for before, _ in pairs], [after for _, after in pairs])


def _value(cell: Cell | None) -> float | None:
    return None if cell is None else cell.value


def _defined(number: Callable[[], float]) -> float | None:
    try:
        found = number()
    except DataError:
        return None
    return found if math.isfinite(found) else None
