"""Formulas of the papers in plain numbers, written out on their own."""

from __future__ import annotations

import math
import zlib
from fractions import Fraction
from statistics import mean

import numpy as np

from golden.entry import Entry

WEIGHT = [[1.0, -2.0, 0.5], [0.25, 3.0, -1.0]]
SCORES = [[0.625, -0.9, 0.25], [0.75, -0.3, 0.3125], [0.5625, -0.4, 0.75]]
CHANCE = [0.25, -1.0, 0.25]
GEM = "arXiv 1706.08840, eq."


def rates(rate: float, alpha: float, layers: int) -> list[float]:
    """Return ``lr_i = lr_N * alpha^(N - i)`` for ``i`` from 0, the embeddings, to N."""
    return [rate * math.prod([alpha] * (layers - layer)) for layer in range(layers + 1)]


def rows_of_replay(ratio: str, rows: int) -> int:
    """Return ``floor(ratio * rows)`` of an exact ratio."""
    return math.floor(Fraction(ratio) * rows)


def surprising(losses: list[float], temperature: float, n_rows: int, seed: int, name: str) -> list[int]:
    """Return the rows with the largest ``loss / T + g`` with Gumbel noise ``g``."""
    noise = np.random.default_rng([seed, zlib.crc32(name.encode()), 0, 1, 0x5EED]).gumbel(size=len(losses))
    keys = {row: loss / temperature + float(g) for row, (loss, g) in enumerate(zip(losses, noise, strict=True))}
    return sorted(sorted(keys, key=lambda row: -keys[row])[:n_rows])


def decomposed(
    weight: list[list[float]], delta: list[list[float]], magnitude: list[float], factor: float
) -> list[list[float]]:
    """Return ``m(f) (W + f delta) / |W + f delta|`` with ``m(f) = (1 - f) |W| + f m``, row by row."""
    found = []
    for row, moved_by, target in zip(weight, delta, magnitude, strict=True):
        moved = [w + factor * d for w, d in zip(row, moved_by, strict=True)]
        length = (1 - factor) * math.hypot(*row) + factor * target
        found.append([length * value / math.hypot(*moved) for value in moved])
    return found


def interpolated(
    base: list[list[float]], trained: list[list[float]], factor: float, kept: list[int]
) -> list[list[float]]:
    """Return ``(1 - f) base + f trained`` by row; the rows ``kept``, units, and those the base lacks as trained."""
    return [
        row
        if number in kept or number >= len(base)
        else [(1 - factor) * b + factor * t for b, t in zip(base[number], row, strict=True)]
        for number, row in enumerate(trained)
    ]


def average_score(scores: list[list[float]]) -> float:
    """Return ``1/T sum_i R[T, i]``."""
    return sum(scores[-1]) / len(scores)


def backward_transfer(scores: list[list[float]]) -> float:
    """Return ``1/(T-1) sum_{i<T} R[T, i] - R[i, i]``."""
    n = len(scores)
    return sum(scores[n - 1][i] - scores[i][i] for i in range(n - 1)) / (n - 1)


def forward_transfer(scores: list[list[float]], chance: list[float]) -> float:
    """Return ``1/(T-1) sum_{i>1} R[i-1, i] - b_i``."""
    n = len(scores)
    return sum(scores[i - 1][i] - chance[i] for i in range(1, n)) / (n - 1)


def forgetting(scores: list[list[float]]) -> float:
    """Return ``1/(T-1) sum_{j<T} max_{l<T} R[l, j] - R[T, j]``."""
    n = len(scores)
    return sum(max(scores[row][j] for row in range(n - 1)) - scores[n - 1][j] for j in range(n - 1)) / (n - 1)


def forget_percent(before: list[float], after: list[float]) -> float:
    """Return ``100 * (mean after - mean before) / mean before``."""
    return 100 * (mean(after) - mean(before)) / mean(before)


_LLRD = {"rate": 1e-4, "alpha": 0.9, "layers": 4}
_DRAW = {"losses": [0.5, 2.0, 1.25, 0.75, 1.5], "temperature": 0.5, "n_rows": 2, "seed": 7, "name": "asr"}
_DORA = {"weight": WEIGHT, "delta": [[0.5, 1.0, 0.25], [-1.0, 0.5, 2.0]], "magnitude": [2.5, 3.0], "factor": 0.6}
_ROWS = {
    "base": [[1.0, -2.0], [0.5, 0.5], [3.0, 0.0]],
    "trained": [[2.0, -1.0], [1.5, -0.5], [4.0, 1.0], [0.25, 0.75]],
    "factor": 0.6,
    "kept": [2],
}
_ERRORS = {"before": [0.12, 0.2, 0.08], "after": [0.15, 0.3, 0.09]}
ENTRIES = (
    Entry("layer-wise learning-rate decay", "arXiv 2305.09681", "formula", _LLRD, rates),
    Entry("rows of replay", "arXiv 2505.17496", "formula, exact", {"ratio": "0.29", "rows": 100}, rows_of_replay),
    Entry("Gumbel-top-k draw of replay", "arXiv 1903.06059", "formula, numpy's Gumbel noise", _DRAW, surprising),
    Entry("DoRA at a factor", "arXiv 2402.09353, equation 5; the factor is ours", "formula", _DORA, decomposed),
    Entry("interpolated rows", "docs/methods/lora_scale.md; ours", "formula", _ROWS, interpolated),
    Entry("average score", f"{GEM} 2", "formula", {"scores": SCORES}, average_score),
    Entry("backward transfer", f"{GEM} 3", "formula", {"scores": SCORES}, backward_transfer),
    Entry("forward transfer", f"{GEM} 4", "formula", {"scores": SCORES, "chance": CHANCE}, forward_transfer),
    Entry("forgetting", "arXiv 1801.10112, eq. 4", "formula", {"scores": SCORES}, forgetting),
    Entry("forget percent", "arXiv 2305.09681", "formula", _ERRORS, forget_percent),
)
