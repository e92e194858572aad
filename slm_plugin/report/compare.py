"""The variants side by side after their last stages, with intervals and paired differences of like with like."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from slm_plugin.errors import DataError
from slm_plugin.eval.statistics import Interval, Items, compared, resampled
from slm_plugin.report.content import Bar, Cell, Comparison, Variant

NORMAL_95 = 1.959964
"""Half the width of a 95 % interval in standard errors, where items are not known."""


@dataclass(frozen=True)
class Entry:
    """A variant beside others.

    Attributes:
        label: What it is called there.
        variant: Its matrix.
        items: Items of its last row by skill.
        run: Number of its run.
        definitions: How each skill is scored; empty if that is not known.
    """

    label: str
    variant: Variant
    items: Mapping[str, Items]
    run: int = 0
    definitions: Mapping[str, Any] = field(default_factory=dict)


def compare(entries: Sequence[Entry], better: Mapping[str, str], seed: int) -> list[Comparison]:
    """Return a comparison per skill of all variants after their last stages.

    Intervals are bootstrap intervals over items where those were kept, else 1.96 standard errors. A difference is
    taken item by item, to the first entry that ended at the same stage and was scored in the same way, if both
    have the same number of items. Every bootstrap starts from ``seed``, so that no number depends on what else is
    on the page.
    """
    skills = dict.fromkeys(skill for entry in entries for skill in entry.variant.skills)
    found = []
    for skill in skills:
        bars = [bar for entry in entries if (bar := _bar(entry, entries, skill, seed)) is not None]
        if bars:
            found.append(Comparison(skill, better.get(skill, "higher"), bars))
    return found


def ended_alike(first: Entry, second: Entry) -> bool:
    """Tell whether two variants ended at the same stage, so that a difference between them says something.

    Models that were trained in different stages never did. Rows of one name did, and rows that the pipelines give no
    label, such as ``plain`` and ``anchored``, if both variants are finished and neither has the other's row as well.
    """
    one, other = first.variant, second.variant
    if one.trained and other.trained and one.trained != other.trained:
        return False
    if one.stages[-1] == other.stages[-1]:
        return True
    if not (one.finished and other.finished) or (one.labelled and other.labelled):
        return False
    if one.stages[-1] in other.stages or other.stages[-1] in one.stages:
        return False
    if one.trained and other.trained:
        return True
    return first.run == second.run and len(one.stages) == len(other.stages)


def _reference(entry: Entry, entries: Sequence[Entry], skill: str) -> Entry | None:
    """Return the first entry that a score may be compared with; None if that is the entry itself."""
    for other in entries:
        if other is entry:
            return None
        known = [one.definitions.get(skill) for one in (entry, other)]
        if _cell(other.variant, skill) is None or (None not in known and known[0] != known[1]):
            continue
        if ended_alike(other, entry):
            return other
    return None


def _cell(variant: Variant, skill: str) -> Cell | None:
    if skill not in variant.skills or not variant.cells:
        return None
    return variant.cells[-1][list(variant.skills).index(skill)]


def _bar(entry: Entry, entries: Sequence[Entry], skill: str, seed: int) -> Bar | None:
    variant, cell = entry.variant, _cell(entry.variant, skill)
    if cell is None:
        return None
    first = _reference(entry, entries, skill)
    # variants that have not parted yet share an evaluation, which does not differ from itself
    shared = first is not None and (first.run, first.variant.evaluations[-1]) == (entry.run, variant.evaluations[-1])
    first = None if shared else first
    items = entry.items.get(skill, ())
    low = high = None
    interval = _resampled(items, seed)
    if interval is not None:
        low, high = interval.low, interval.high
    elif cell.standard_error is not None:
        low, high = (cell.value + sign * NORMAL_95 * cell.standard_error for sign in (-1, 1))
    bar = Bar(entry.label, variant.stages[-1], cell.value, cell.n, low, high, finished=variant.finished)
    difference = None if first is None else _compared(first.items.get(skill, ()), items, seed)
    if first is None or difference is None:
        return bar
    return replace(
        bar,
        difference=difference.value,
        difference_low=difference.low,
        difference_high=difference.high,
        differs=difference.excludes_zero,
        reference=first.label,
    )


def _resampled(items: Items, seed: int) -> Interval | None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)
            return _finite(resampled(items, np.random.default_rng(seed)))
    except DataError:
        return None


def _compared(first: Items, second: Items, seed: int) -> Interval | None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)
            return _finite(compared(first, second, np.random.default_rng(seed)))
    except DataError:
        return None


def _finite(interval: Interval) -> Interval | None:
    return interval if np.isfinite([interval.value, interval.low, interval.high]).all() else None
