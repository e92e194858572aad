"""Best paths and orders by looking at every one, in plain numbers."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction
from functools import cache
from statistics import mean, median

from golden.entry import Entry

PROBABILITIES = [
    [0.5, 0.25, 0.125, 0.125],
    [0.125, 0.625, 0.125, 0.125],
    [0.0625, 0.5, 0.375, 0.0625],
    [0.25, 0.125, 0.25, 0.375],
    [0.125, 0.125, 0.25, 0.5],
    [0.625, 0.125, 0.0625, 0.1875],
]


def aligned(probabilities: list[list[float]], targets: list[int]) -> list[list[float]]:
    """Return first frame, end and mean probability of each target on the best of all paths; the blank is 0."""

    def collapsed(path: tuple[int, ...]) -> list[int]:
        return [token for token, _ in itertools.groupby(path) if token]

    paths = itertools.product(range(len(probabilities[0])), repeat=len(probabilities))
    allowed = [path for path in paths if collapsed(path) == targets]
    best = max(allowed, key=lambda path: math.prod(row[token] for row, token in zip(probabilities, path, strict=True)))
    found: list[list[float]] = []
    for token, run in itertools.groupby(enumerate(best), key=lambda pair: pair[1]):
        frames = [frame for frame, _ in run]
        if token:
            found.append([frames[0], frames[-1] + 1, mean(probabilities[frame][token] for frame in frames)])
    return found


def heard(templates: list[tuple[str, list[int]]], distances: list[list[float]], units: list[int]) -> str:
    """Return the words whose templates, end to end, match the units most cheaply, of all words and cuts.

    A unit too many and one too few cost 0.7, each word 0.6, a match its distance over the median, at most 1.2; the
    first unit of a word matches the first of its template.
    """
    middle = median(value for row in distances for value in row)

    def cost(part: list[int], template: list[int]) -> float:
        @cache
        def standing(n: int, at: int) -> float:
            if n < 1 or at < 0:
                return math.inf
            match = min(distances[part[n - 1]][template[at]] / middle, 1.2)
            if n == 1 and at == 0:
                return match
            return min(standing(n - 1, at) + 0.7, standing(n - 1, at - 1) + match, standing(n, at - 1) + 0.7)

        return standing(len(part), len(template) - 1) + 0.6

    ways = []
    for n_words in range(1, len(units) + 1):
        for cuts in itertools.combinations(range(1, len(units)), n_words - 1):
            parts = [units[start:end] for start, end in itertools.pairwise((0, *cuts, len(units)))]
            best = [min((cost(part, template), word) for word, template in templates) for part in parts]
            ways.append((sum(value for value, _ in best), " ".join(word for _, word in best)))
    return min(ways)[1]


def assigned(ratios: list[str], positions: int) -> list[int]:
    """Return whose turn each position is: of the rows that may come, the one that must come first.

    The k-th row of a stream may come once its shares add up to more than k - 1, and must before they exceed k.
    """
    weights = [Fraction(1), *map(Fraction, ratios)]
    shares = [weight / sum(weights) for weight in weights]
    counts = [0] * len(shares)
    found = []
    for position in range(1, positions + 1):
        may = [stream for stream, share in enumerate(shares) if share * position > counts[stream]]
        stream = min(may, key=lambda stream: math.ceil((counts[stream] + 1) / shares[stream]))
        counts[stream] += 1
        found.append(stream)
    return found


_TEMPLATES = [["go", [0, 1, 1]], ["stop", [2, 3, 0]], ["left", [3, 3, 1, 2]]]
_DISTANCES = [[0.0, 1.0, 2.0, 1.5], [1.0, 0.0, 0.5, 2.0], [2.0, 0.5, 0.0, 1.0], [1.5, 2.0, 1.0, 0.0]]
ENTRIES = (
    Entry(
        "CTC alignment",
        "Graves et al. 2006, section 3",
        "formula, all paths",
        {"probabilities": PROBABILITIES, "targets": [1, 2, 3]},
        aligned,
    ),
    Entry(
        "recogniser of units",
        "Ney 1984",
        "formula, all words and cuts",
        {"templates": _TEMPLATES, "distances": _DISTANCES, "units": [0, 1, 2, 3, 0, 3, 1, 2]},
        heard,
    ),
    Entry(
        "turns of replay",
        "Tijdeman 1980",
        "formula, exact",
        {"ratios": ["0.5", "0.3"], "positions": 12},
        assigned,
    ),
)
