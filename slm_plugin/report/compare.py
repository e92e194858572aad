"""The variants side by side after their last stages, with intervals and paired differences."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from slm_plugin.errors import DataError
from slm_plugin.eval.statistics import Interval, Items, compared, resampled
from slm_plugin.report.content import Bar, Comparison, Variant

NORMAL_95 = 1.959964
"""Half the width of a 95 % interval in standard errors, where items are not known."""


@dataclass(frozen=True)
class Entry:
    """A variant, what it is called beside others, and the items of its last row by skill."""

    label: str
    variant: Variant
    items: Mapping[str, Items]


def compare(entries: Sequence[Entry], better: Mapping[str, str], seed: int) -> list[Comparison]:
    """Return a comparison per skill of all variants after their last stages.

    Intervals are bootstrap intervals over items where those were kept, else 1.96 standard errors. The
    difference to the first entry is taken item by item where both have the same number of items. Every
    bootstrap starts from ``seed``, so that no number depends on what else is on the page.
    """
    skills = dict.fromkeys(skill for entry in entries for skill in entry.variant.skills)
    found = []
    for skill in skills:
        bars = [bar for entry in entries if (bar := _bar(entry, entries[0], skill, seed)) is not None]
        if bars:
            found.append(Comparison(skill, better.get(skill, "higher"), bars))
    return found


def _bar(entry: Entry, first: Entry, skill: str, seed: int) -> Bar | None:
    variant = entry.variant
    if skill not in variant.skills or not variant.cells:
        return None
    cell = variant.cells[-1][list(variant.skills).index(skill)]
    if cell is None:
        return None
    items, others = entry.items.get(skill, ()), first.items.get(skill, ())
    low = high = None
    interval = _resampled(items, seed)
    if interval is not None:
        low, high = interval.low, interval.high
    elif cell.standard_error is not None:
        low, high = (cell.value + sign * NORMAL_95 * cell.standard_error for sign in (-1, 1))
    bar = Bar(entry.label, variant.stages[-1], cell.value, cell.n, low, high)
    difference = None if entry is first else _compared(others, items, seed)
    if difference is None:
        return bar
    ends = (difference.value, difference.low, difference.high, difference.excludes_zero)
    return Bar(bar.variant, bar.stage, bar.value, bar.n, low, high, *ends)


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
