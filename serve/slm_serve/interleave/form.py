"""Recognise a spoken answer that has gone wrong, so that it can be ended instead of going on forever."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

Malformed = Literal["units_before_words", "repeated_units", "units_without_end"]
"""Why an answer was ended: it speaks before it says what; it says the same over and over; a word never ends."""

REPEATED_S = 3.0
"""Longest run of one short pattern of units. Silence between sentences is shorter."""
WORD_S = 10.0
"""Longest run of units without a word."""
LONGEST_PERIOD = 8
"""Longest pattern that counts as repeated, in units."""


class FormCheck:
    """Watches the words and units of one spoken answer.

    A run of units ``u`` repeats a pattern of ``p`` when ``u[i] = u[i - p]``; it is malformed when that
    holds for ``REPEATED_S`` seconds with one ``p`` up to ``LONGEST_PERIOD``. Words begin the count anew.

    Args:
        rate_hz: Units per second.
        words_first: Whether units must follow words.
    """

    def __init__(self, rate_hz: float, words_first: bool = True) -> None:
        self._most_repeated = max(LONGEST_PERIOD + 1, int(REPEATED_S * rate_hz))
        self._most_units = int(WORD_S * rate_hz)
        self._words_first = words_first
        self._latest: list[int] = []
        self._matches = [0] * (LONGEST_PERIOD + 1)
        self._n_units = 0

    def words(self, text: str) -> None:
        """Take words of the answer."""
        if text.strip():
            self._words_first = False
            self._latest, self._n_units = [], 0
            self._matches = [0] * (LONGEST_PERIOD + 1)

    def units(self, units: Sequence[int]) -> tuple[int, Malformed | None]:
        """Take further units of the answer.

        Returns:
            How many of them are well formed, and what is wrong with the next, if anything is.
        """
        if self._words_first:
            return 0, "units_before_words"
        for position, unit in enumerate(units):
            self._n_units += 1
            if self._n_units > self._most_units:
                return position, "units_without_end"
            for period in range(1, min(LONGEST_PERIOD, len(self._latest)) + 1):
                self._matches[period] = self._matches[period] + 1 if self._latest[-period] == unit else 0
                if self._matches[period] >= self._most_repeated:
                    return position, "repeated_units"
            self._latest = [*self._latest[-LONGEST_PERIOD + 1 :], unit]
        return len(units), None
