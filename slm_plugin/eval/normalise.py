"""Forms of a text in which two texts are compared: what counts as the same words."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from functools import cache
from typing import Literal

Normalisation = Literal["case", "punctuation", "english"]
"""``case`` ignores the case of letters and the number of blanks. ``punctuation`` also ignores punctuation, symbols
and text in brackets. ``english`` also ignores how numbers, contractions and titles are spelled, diacritics and
fillers. None of them distinguishes two encodings of one character, such as curly and straight quotes.

Source: arXiv 2212.04356 (Whisper), appendix C, by its implementation in transformers. ``punctuation`` differs from it
in two points: it keeps marks that belong to a letter, such as the vowels of Devanagari, and the decimal point, the
sign and the digits of a number stay one word.
"""

_SAME = str.maketrans(
    {
        **dict.fromkeys("\u2018\u2019\u201a\u201b\u02bc\u02bb\u2032\u00b4", "'"),
        **dict.fromkeys("\u201c\u201d\u201e\u201f\u2033\u00ab\u00bb", '"'),
        **dict.fromkeys("\u2010\u2011\u2212", "-"),
    }
)
_SAME_LETTERS = (
    *("<wide>", "<narrow>", "<noBreak>", "<compat>", "<font>"),
    *("<initial>", "<medial>", "<final>", "<isolated>"),
)
"""Compatibility forms that are the same text. Superscripts and fractions are not: 10\u00b2 is not 102."""

_DIGIT_GROUPS = re.compile(r"(?<![\d.,])\d{1,3}(?:(?:,\d{3})+(?!\d|,\d)|(?:[\u00a0\u2009\u202f]\d{3})+(?!\d))")
_RANGE = re.compile(r"(?<=\d)[\u2012\u2013](?=\d)")
_SIGN = re.compile(r"(?<![\w)\].,%-])-(?=\d)")
_PERCENT = re.compile(r"(?<=\d)\s+%")
_IN_NUMBER = re.compile(r"(?<![\d.])\d+\.\d+(?!\.?\d)")
_ANGLES, _ROUND = re.compile(r"[<\[][^>\]]*[>\]]"), re.compile(r"\(([^)]+?)\)")


def normaliser(name: Normalisation) -> Callable[[str], str]:
    """Return the function that brings a text into the form that is compared; single blanks, none at the ends."""
    if name == "english":
        return _english()
    return plain if name == "case" else _without_punctuation


def plain(text: str) -> str:
    """Return a text in lower case with single blanks, for comparison."""
    if text.isascii():
        return " ".join(text.lower().split())
    return " ".join(unicodedata.normalize("NFC", same_characters(text).casefold()).split())


def same_characters(text: str) -> str:
    """Return a text in which every character has one encoding.

    Curly quotes become straight, dashes between digits become hyphens, full-width letters, ligatures and composed
    letters take their usual form, and characters without a width, such as soft hyphens, are removed.
    """
    if text.isascii():
        return text
    text = _RANGE.sub("-", text.translate(_SAME))
    folded = (
        unicodedata.normalize("NFKC", one) if unicodedata.decomposition(one).startswith(_SAME_LETTERS) else one
        for one in text
        if unicodedata.category(one) != "Cf"
    )
    # a full-width quote is a quote after this step only
    return unicodedata.normalize("NFC", "".join(folded)).translate(_SAME)


def join_digit_groups(text: str) -> str:
    """Return a text without separators of thousands: ``1,000`` is ``1000``. A comma before other digits stays."""
    return _DIGIT_GROUPS.sub(lambda found: re.sub(r"\D", "", found[0]), text)


def bare_words(text: str) -> str:
    """Return a text without punctuation and symbols at the edges of words; those inside a word stay."""
    marks = "".join(one for one in set(text) if unicodedata.category(one)[0] in "SP")
    return " ".join(filter(None, (word.strip(marks) for word in text.split())))


def without_brackets(text: str) -> str:
    """Return a text without brackets and the words in them."""
    return _ROUND.sub("", _ANGLES.sub("", text))


def _without_punctuation(text: str) -> str:
    text = without_brackets(same_characters(join_digit_groups(text)).lower())
    kept = {place for found in _IN_NUMBER.finditer(text) for place in range(*found.span())}
    kept |= {found.start() for found in _SIGN.finditer(text)}
    letters = [
        one if place in kept or unicodedata.category(one)[0] not in "SP" else " " for place, one in enumerate(text)
    ]
    return " ".join(unicodedata.normalize("NFKC", "".join(letters)).split())


@cache
def _english() -> Callable[[str], str]:
    from transformers.models.whisper.english_normalizer import EnglishTextNormalizer

    normalise: Callable[[str], str] = EnglishTextNormalizer({})

    # it reads straight apostrophes only, takes a sign for a hyphen, and drops a "%" behind a blank
    def english(text: str) -> str:
        text = _SIGN.sub("minus ", _PERCENT.sub("%", same_characters(text)))
        return " ".join(normalise(text).split())

    return english
