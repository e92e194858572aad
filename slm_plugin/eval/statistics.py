"""How sure a score is, and whether two models differ: resampling of items, spread over seeds.

``items`` are the ``(numerator, denominator)`` pairs of :class:`slm_plugin.records.Score`, ``N`` of them; a score is
the sum of the numerators over the sum of the denominators. All randomness comes from a generator passed in.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from slm_plugin.errors import DataError

Items = Sequence[tuple[float, float]]
RESAMPLES = 2000
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Interval:
    """A number with what resampling says of it.

    Attributes:
        value: The number as measured.
        standard_error: Standard deviation over the resamples.
        low: Lower end of the 95 % interval.
        high: Upper end.
    """

    value: float
    standard_error: float
    low: float
    high: float

    @property
    def excludes_zero(self) -> bool:
        """Whether zero lies outside the interval."""
        return self.low > 0 or self.high < 0


def resampled(items: Items, generator: np.random.Generator, resamples: int = RESAMPLES) -> Interval:
    """Return a score's bootstrap interval: items are drawn anew with replacement, the ratio taken each time.

    With ``r_b = sum_i a_i / sum_i b_i`` over the items of draw b, the standard error is the deviation of the
    ``r_b`` and the interval their 2.5 and 97.5 percentiles.

    Source: Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, chapters 6 and 13 (percentile interval).

    Raises:
        DataError: There are fewer than two items.
    """
    numerators_N, denominators_N = _columns(items)
    return _bootstrap((numerators_N, denominators_N), _ratio, generator, resamples)


def compared(first: Items, second: Items, generator: np.random.Generator, resamples: int = RESAMPLES) -> Interval:
    """Return the difference ``second - first`` of two models' scores on the same items, item by item.

    Both are resampled together, ``r_b = score(second in draw b) - score(first in draw b)``, so what makes an item hard
    for both cancels out.

    Source: Koehn, "Statistical Significance Tests for Machine Translation Evaluation", EMNLP 2004 (paired bootstrap).

    Raises:
        DataError: The numbers of items differ, or there are fewer than two.
    """
    if len(first) != len(second):
        raise DataError(f"two models are compared on the same items, got {len(first)} and {len(second)}.")
    columns = (*_columns(first), *_columns(second))
    return _bootstrap(columns, lambda a, b, c, d, axis: _ratio(c, d, axis) - _ratio(a, b, axis), generator, resamples)


def spread(values: Sequence[float]) -> tuple[float, float | None]:
    """Return mean and sample standard deviation of one score over seeds; the latter None for a single seed.

    Raises:
        DataError: There are no values.
    """
    if not values:
        raise DataError("the spread over seeds needs at least one value.")
    return float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else None


def noise_floor(deviation: float, n_first: int, n_second: int) -> float:
    """Return ``2 * deviation * sqrt(1 / n_first + 1 / n_second)``, about what seeds alone make of one method.

    A smaller difference between the means of two methods, over so many seeds each, says nothing.

    Args:
        deviation: Sample standard deviation of the score over seeds, from :func:`spread`.
        n_first: Seeds of the first method.
        n_second: Seeds of the second.

    Returns:
        A difference of scores, in their unit.
    """
    return 2.0 * deviation * math.sqrt(1.0 / n_first + 1.0 / n_second)


def _columns(items: Items) -> tuple[np.ndarray, np.ndarray]:
    if len(items) < 2:
        raise DataError(f"resampling needs at least two items, got {len(items)}.")
    pairs_N2 = np.asarray(items, dtype=np.float64)
    return pairs_N2[:, 0], pairs_N2[:, 1]


def _ratio(numerators: np.ndarray, denominators: np.ndarray, axis: int = -1) -> np.ndarray:
    return np.asarray(numerators.sum(axis=axis) / denominators.sum(axis=axis))


def _bootstrap(
    columns: tuple[np.ndarray, ...],
    statistic: Callable[..., np.ndarray],
    generator: np.random.Generator,
    resamples: int,
) -> Interval:
    # here, because it takes most of a second to load and few of the importers of this module resample
    from scipy import stats

    value = float(statistic(*columns, axis=-1))
    found = stats.bootstrap(
        columns,
        statistic,
        n_resamples=resamples,
        paired=True,
        vectorized=True,
        confidence_level=CONFIDENCE,
        method="percentile",
        rng=generator,
    )
    low, high = found.confidence_interval
    return Interval(value, float(found.standard_error), float(low), float(high))
