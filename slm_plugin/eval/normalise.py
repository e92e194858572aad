"""What two texts must have in common to count as the same words."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Literal

Normalisation = Literal["case", "punctuation", "english"]
"""``case``: letters' case and blanks do not count. ``punctuation``: nor do punctuation, symbols and what stands in
brackets. ``english``: nor do spelled-out numbers, contractions, titles and fillers.

Source: arXiv 2212.04356 (Whisper), appendix C, by its implementation in transformers.
"""


def normaliser(name: Normalisation) -> Callable[[str], str]:
    """Return what brings a text into the form that is compared; single blanks, none at the ends."""
    return plain if name == "case" else _spaced(name)


def plain(text: str) -> str:
    """Return a text in lower case with single blanks, for comparison."""
    return " ".join(text.lower().split())


@cache
def _spaced(name: Normalisation) -> Callable[[str], str]:
    from transformers.models.whisper.english_normalizer import BasicTextNormalizer, EnglishTextNormalizer

    normalise: Callable[[str], str] = BasicTextNormalizer() if name == "punctuation" else EnglishTextNormalizer({})
    return lambda text: " ".join(normalise(text).split())
