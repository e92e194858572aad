"""Words as the letters of a recogniser."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

_SAME = {"’": "'", "‘": "'", "ʼ": "'", "–": "-", "—": "-", "‐": "-"}


@dataclass(frozen=True)
class Letters:
    """The letters that a CTC recogniser knows.

    Attributes:
        vocabulary: Number of each letter.
        blank: Number of the blank.
        delimiter: Letter between words; None for none.
    """

    vocabulary: Mapping[str, int]
    blank: int
    delimiter: str | None

    def spell(self, word: str) -> list[int]:
        """Return the numbers of the known letters of a word, in the case that the vocabulary has."""
        numbers = []
        for character in unicodedata.normalize("NFKC", word):
            character = _SAME.get(character, character)
            for form in (character, character.lower(), character.upper()):
                # a special token such as <s> is no letter, and the delimiter is none of a word
                if len(form) == 1 and form in self.vocabulary and form != self.delimiter:
                    numbers.append(self.vocabulary[form])
                    break
        return [number for number in numbers if number != self.blank]

    def path(self, words: Sequence[str]) -> tuple[list[int], list[int | None]]:
        """Return the letters of a text and which word each belongs to; None for the delimiter."""
        numbers: list[int] = []
        owners: list[int | None] = []
        for index, word in enumerate(words):
            spelt = self.spell(word)
            if not spelt:
                continue
            if numbers and self.delimiter in self.vocabulary:
                numbers.append(self.vocabulary[str(self.delimiter)])
                owners.append(None)
            numbers.extend(spelt)
            owners.extend([index] * len(spelt))
        return numbers, owners
