"""Rows that are left out of a data set although they could be used: by flag, by text, and by units per word."""

from __future__ import annotations

import re

from pydantic import Field, field_validator, model_validator

from slm_plugin.errors import suggest
from slm_plugin.speech.policy import FLAGS
from slm_plugin.strict import Strict

EVEN = "even"
NOT_SPOKEN = "answer_not_spoken"
ROW_FLAGS = {
    **FLAGS,
    EVEN: "has word times that were guessed from the number of characters",
    NOT_SPOKEN: "has a short answer that its spoken answer does not contain",
}
"""What is noted about a row, by name."""

FEW_UNITS, MANY_UNITS, PATTERN = "few_units_per_word", "many_units_per_word", "pattern"
MEMORY, UNREADABLE = "memory", "unreadable"


class DroppedError(Exception):
    """An item is left out and reported.

    Attributes:
        reason: One word for the counts.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class Drop(Strict):
    """Which rows are left out. A chat is left out if its question or its answer is."""

    flags: list[str] = Field(default_factory=list)
    """Flags that leave a row out, such as ``[silent, clipped]``; ``even`` leaves out guessed word times."""

    patterns: list[str] = Field(default_factory=list)
    """Regular expressions; a text that one of them is found in is left out. ``['[\\[(<].*[\\])>]']`` finds anything in
    brackets. Capital and small letters are the same."""

    min_units_per_word: float | None = Field(default=None, gt=0)
    """Fewest units per word, as they are in the row; silence and cut recordings have fewer than speech."""

    max_units_per_word: float | None = Field(default=None, gt=0)
    """Most units per word; tones, music and recordings that say more than their text have more than speech."""

    @field_validator("flags")
    @classmethod
    def _known(cls, value: list[str]) -> list[str]:
        for flag in value:
            if flag not in ROW_FLAGS:
                raise ValueError(f"no flag is called {flag!r}. {suggest(flag, ROW_FLAGS, 'Flags')}")
        return value

    @field_validator("patterns")
    @classmethod
    def _compiles(cls, value: list[str]) -> list[str]:
        for pattern in value:
            try:
                re.compile(pattern)
            except re.error as error:
                raise ValueError(f"{pattern!r} is not a regular expression ({error}).") from None
        return value

    @model_validator(mode="after")
    def _ordered(self) -> Drop:
        low, high = self.min_units_per_word, self.max_units_per_word
        if low is not None and high is not None and low > high:
            raise ValueError(f"min_units_per_word {low:g} is above max_units_per_word {high:g}.")
        return self

    def check_text(self, text: str) -> None:
        """Refuse a text.

        Raises:
            DroppedError: A pattern is found in it.
        """
        for pattern in self.patterns:
            if found := re.search(pattern, text, re.IGNORECASE):
                raise DroppedError(PATTERN, f"the text holds {found[0]!r}, which {pattern!r} leaves out.")

    def check_flags(self, flags: tuple[str, ...]) -> None:
        """Refuse a recording.

        Raises:
            DroppedError: It has one of the flags.
        """
        for flag in self.flags:
            if flag in flags:
                raise DroppedError(flag_reason(flag), f"it {ROW_FLAGS[flag]}.")

    def check_units(self, n_units: int, n_words: int) -> None:
        """Refuse an utterance.

        Args:
            n_units: Units of its row.
            n_words: Words of its text; characters in languages that are written without blanks.

        Raises:
            DroppedError: It has too few or too many units for each word.
        """
        low, high, ratio = self.min_units_per_word, self.max_units_per_word, n_units / max(1, n_words)
        told = f"{n_units} units for {n_words} words are {ratio:.2f} units per word"
        if low is not None and ratio < low:
            raise DroppedError(FEW_UNITS, f"{told}, fewer than {low:g}.")
        if high is not None and ratio > high:
            raise DroppedError(MANY_UNITS, f"{told}, more than {high:g}.")


def flag_reason(flag: str) -> str:
    """Return what rows that a flag leaves out are counted as."""
    return f"flag_{flag}"
