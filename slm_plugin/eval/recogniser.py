"""A word recogniser for units that needs no training: it lays templates of single words end to end.

Every word has a few templates, the units of the word in separate recordings. The recogniser finds the
sequence of templates that the units match most cheaply. Matching unit ``a`` to unit ``b`` of a
template costs how different the two sound; a unit too many, a unit too few and every further word
have fixed costs.

It judges what a model says. Its own error rate on real recordings is the ceiling of such a
judgement and belongs beside it: see :func:`ceiling`.

After step t position j of a template costs
``D(t, j) = min(D(t-1, j) + 0.7, D(t-1, j-1) + d(u_t, v_j), D(t, j-1) + 0.7)``; a word begins with
``E(t-1) + 0.6 + d(u_t, v_1)``, where ``E(t)`` is the cheapest D at the end of a template.

Source: one-pass dynamic programming over connected words (Ney, The use of a one-stage dynamic
programming algorithm for connected word recognition, 1984).

Shapes: ``B`` utterances, ``W`` templates, ``J`` positions in a template, ``K`` units.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np

from slm_plugin.data.rows import text, units
from slm_plugin.errors import DataError
from slm_plugin.eval.normalise import plain
from slm_plugin.eval.rates import Rate, word_error_rate
from slm_plugin.eval.rows import read_rows

EXTRA_UNIT = 0.7
MISSING_UNIT = 0.7
NEXT_WORD = 0.6
LARGEST_DIFFERENCE = 1.2
BATCH = 64
_NEVER = np.float32(1e9)


@runtime_checkable
class HearsUnits(Protocol):
    """What the recogniser must know of a codec."""

    n_units: int

    def distances(self) -> np.ndarray:
        """Return how different any two units sound, ``(K, K)``."""
        ...


class Recogniser(Protocol):
    """What hears words in units."""

    def recognise(self, utterances: Sequence[Sequence[int]]) -> list[str]:
        """Return the words of each utterance, separated by blanks; nothing for one without units."""
        ...


class TemplateRecogniser:
    """Recognises the words of unit sequences.

    Args:
        templates: Words with their units; a word may have several.
        distances_KK: How different any two units sound; scaled so that the median is 1 and cut at
            1.2, so that one unit that is far off costs about as much as a missing one.

    Raises:
        DataError: There is no template, or one without units.
    """

    def __init__(self, templates: Sequence[tuple[str, Sequence[int]]], distances_KK: np.ndarray) -> None:
        if not templates or not all(template for _, template in templates):
            raise DataError("a recogniser needs templates, each with at least one unit.")
        self.words = tuple(word for word, _ in templates)
        self._lengths_W = np.array([len(template) for _, template in templates])
        self._units_WJ = np.zeros((len(templates), int(self._lengths_W.max())), np.int64)
        for row, (_, template) in enumerate(templates):
            self._units_WJ[row, : len(template)] = template
        scaled = distances_KK / np.median(distances_KK)
        self._costs_KK = np.minimum(scaled, LARGEST_DIFFERENCE).astype(np.float32)

    @classmethod
    def load(cls, path: str | Path, codec: HearsUnits) -> TemplateRecogniser:
        """Read templates, JSON lines of ``{"word": ..., "units": [...]}``, for the units of a codec.

        Raises:
            DataError: The file or a row of it cannot be used.
            VocabularyError: A template has a unit that the codec does not.
        """
        rows = read_rows(path)
        templates = [(text(row, "word"), units(row, "units", codec.n_units)) for row in rows]
        return cls(templates, codec.distances())

    def recognise(self, utterances: Sequence[Sequence[int]]) -> list[str]:
        """Return the words of each utterance, separated by blanks; nothing for one without units."""
        order = sorted(range(len(utterances)), key=lambda number: len(utterances[number]))
        words = [""] * len(utterances)
        for start in range(0, len(order), BATCH):
            batch = [number for number in order[start : start + BATCH] if len(utterances[number])]
            if batch:
                found = self._recognise_batch([utterances[number] for number in batch])
                for number, result in zip(batch, found, strict=True):
                    words[number] = result
        return words

    def _recognise_batch(self, utterances: Sequence[Sequence[int]]) -> list[str]:
        n_batch, n_steps = len(utterances), max(map(len, utterances))
        n_templates, n_positions = self._units_WJ.shape
        units_BT = np.zeros((n_batch, n_steps), np.int64)
        for row, utterance in enumerate(utterances):
            units_BT[row, : len(utterance)] = utterance
        positions_J = np.arange(n_positions)
        skipped_J = (MISSING_UNIT * positions_J).astype(np.float32)
        # cost of standing behind position j of a template, and the step its word began at
        cost = np.full((n_batch, n_templates, n_positions), _NEVER, np.float32)
        began = np.zeros(cost.shape, np.int32)
        # cheapest cost of words that end before step t, with the last word's template and beginning
        total_BT = np.zeros((n_batch, n_steps + 1), np.float32)
        template_BT = np.zeros((n_batch, n_steps + 1), np.int32)
        began_BT = np.zeros((n_batch, n_steps + 1), np.int32)
        rows_B = np.arange(n_batch)
        last_W = self._lengths_W - 1
        for step in range(n_steps):
            match = self._costs_KK[units_BT[:, step]][:, self._units_WJ]
            stay = cost + np.float32(EXTRA_UNIT)
            move = np.concatenate([np.full_like(cost[:, :, :1], _NEVER), cost[:, :, :-1]], axis=2) + match
            moved_from = np.concatenate([began[:, :, :1], began[:, :, :-1]], axis=2)
            move[:, :, 0] = (total_BT[:, step] + np.float32(NEXT_WORD))[:, None] + match[:, :, 0]
            moved_from[:, :, 0] = step
            began = np.where(move <= stay, moved_from, began)
            cost = np.minimum(move, stay)
            # positions that are skipped: the cheapest earlier one plus a fixed cost each
            relative = cost - skipped_J
            lowest = np.minimum.accumulate(relative, axis=2)
            source = np.maximum.accumulate(np.where(relative == lowest, positions_J, 0), axis=2)
            cost = lowest + skipped_J
            began = np.take_along_axis(began, source, axis=2)
            ends_BW = cost[:, np.arange(n_templates), last_W]
            best_B = ends_BW.argmin(1)
            total_BT[:, step + 1] = ends_BW[rows_B, best_B]
            template_BT[:, step + 1] = best_B
            began_BT[:, step + 1] = began[rows_B, best_B, last_W[best_B]]
        return [self._trace(template_BT[row], began_BT[row], len(utterances[row])) for row in range(n_batch)]

    def _trace(self, template_T: np.ndarray, began_T: np.ndarray, end: int) -> str:
        found = []
        while end > 0:
            found.append(self.words[template_T[end]])
            end = int(began_T[end])
        return " ".join(reversed(found))


def ceiling(
    recogniser: Recogniser,
    rows: Sequence[Mapping[str, Any]],
    n_units: int,
    normalise: Callable[[str], str] = plain,
) -> Rate:
    """Return a recogniser's word error rate on the units of real recordings: no model can be judged better.

    Args:
        recogniser: The recogniser.
        rows: Rows with ``discrete_unit`` (or ``units``) and ``transcription`` (or ``text``).
        n_units: Units in the vocabulary.
        normalise: What brings texts into the form that is compared.
    """
    said = [normalise(text(row, "text|transcription")) for row in rows]
    heard = recogniser.recognise([units(row, "units|discrete_unit", n_units) for row in rows])
    heard = [normalise(words) for words in heard]
    return word_error_rate(said, heard)
