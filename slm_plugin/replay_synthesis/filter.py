"""Which rows are kept: length, quality, and whether they are there already. Every drop has a reason."""

from __future__ import annotations

import math
import re
import zlib
from collections.abc import Sequence

import jiwer

from slm_plugin.generation.protocol import Answer
from slm_plugin.replay_synthesis.options import Limits
from slm_plugin.vocabulary import UNIT_SPELLING

UNFINISHED = "no end of answer"
SPECIAL = "special tokens inside"
EMPTY = "empty"
UNITS = "units where none belong"
INTERLEAVING = "malformed interleaving"
SECTIONS = "malformed sections"
WORDS = "other words than those to be spoken"
REPETITION = "repetition"
SHORT = "too short"
LONG = "too long"
IMPROBABLE = "improbable"
DUPLICATE = "duplicate"
NEAR_DUPLICATE = "near duplicate"

_LONGEST_CYCLE = 8
_LONGEST_CHARACTER_RUN = 40
_WORDS_BEFORE_UNITS = 3
_SHINGLE = 5
_UNIT_RUN = re.compile(f"((?:{UNIT_SPELLING})+)")
_ELEMENT = re.compile(f"{UNIT_SPELLING}|.", re.DOTALL)
_CHARACTER_RUN = re.compile(rf"(\S)\1{{{_LONGEST_CHARACTER_RUN}}}")


def length_problem(written: Answer, limits: Limits) -> str | None:
    """Return why an answer's end, length or probability rules it out; None where they do not."""
    n_tokens = len(written.ids)
    if not written.finished:
        return UNFINISHED
    if n_tokens < limits.min_tokens:
        return SHORT
    if limits.max_tokens is not None and n_tokens > limits.max_tokens:
        return LONG
    floor, score = limits.min_log_probability, written.log_probability
    if floor is not None and (score is None or score < floor):
        return IMPROBABLE
    return None


def repetition_problem(text: str, limits: Limits) -> str | None:
    """Tell whether a text is stuck: words, characters or units that come again and again in a row."""
    units = [token for run in _UNIT_RUN.findall(text) for token in re.findall(r"\d+", run)]
    if _longest_cycle(units, 1) > limits.max_unit_run:
        return REPETITION
    plain = _UNIT_RUN.sub(" ", text)
    tokens = words(plain)
    cycles = (_longest_cycle(tokens, period) for period in range(1, _LONGEST_CYCLE + 1))
    return REPETITION if _CHARACTER_RUN.search(plain) or max(cycles) > limits.max_repeats else None


def _longest_cycle(tokens: Sequence[str], period: int) -> int:
    """Return how often in a row some piece of ``period`` tokens comes, 1 where none comes again."""
    longest = run = 0
    for position in range(period, len(tokens)):
        run = run + 1 if tokens[position] == tokens[position - period] else 0
        longest = max(longest, run)
    return 1 + longest // period


def interleaving_problem(spoken: str, said: str, limits: Limits) -> str | None:
    """Check words with their units: ``anna<|3|><|7|> sings<|1|>`` speaks ``anna sings``.

    Args:
        spoken: Interleaved text.
        said: What was to be spoken.
        limits: How many words may differ.
    """
    pieces = _UNIT_RUN.split(spoken)
    texts = pieces[::2]
    is_complete = len(pieces) > 1 and not texts[-1].strip()
    if not is_complete or any(len(piece.split()) > _WORDS_BEFORE_UNITS for piece in texts):
        return INTERLEAVING
    wanted, found = words(said), words(" ".join(texts))
    if not wanted or not found:
        return WORDS
    return WORDS if jiwer.wer(" ".join(wanted), " ".join(found)) > limits.max_word_errors else None


def words(text: str) -> list[str]:
    """Return the words of a text in lower case, without punctuation."""
    return re.findall(r"[\w']+", text.lower())


class Seen:
    """Texts that are there already, exactly or nearly.

    Two texts are near where the Jaccard similarity ``|A & B| / |A | B|`` of their pieces of five
    characters (a unit counts as one) reaches the threshold t. Texts that near share one of the
    ``|A| - ceil(t |A|) + 1`` smallest pieces under any one order, so only those are looked up.

    Args:
        threshold: Similarity t in (0, 1].
    """

    def __init__(self, threshold: float) -> None:
        self._threshold = threshold
        self._exact: set[str] = set()
        self._pieces: list[frozenset[str]] = []
        self._index: dict[str, list[int]] = {}

    def add(self, text: str) -> str | None:
        """Take a text in and return None, or return why it is not taken."""
        normal = normalise(text)
        if normal in self._exact:
            return DUPLICATE
        pieces = shingles(normal)
        ordered = sorted(pieces, key=lambda piece: (zlib.crc32(piece.encode()), piece))
        prefix = ordered[: len(ordered) - math.ceil(self._threshold * len(ordered) - 1e-9) + 1]
        for number in sorted({number for piece in prefix for number in self._index.get(piece, ())}):
            other = self._pieces[number]
            common = len(pieces & other)
            if common >= self._threshold * (len(pieces) + len(other) - common) - 1e-9:
                return NEAR_DUPLICATE
        self._exact.add(normal)
        for piece in prefix:
            self._index.setdefault(piece, []).append(len(self._pieces))
        self._pieces.append(pieces)
        return None


def normalise(text: str) -> str:
    """Return a text in lower case, its words one blank apart, its units without, its punctuation gone."""
    tokens = " ".join(re.findall(rf"{UNIT_SPELLING}|[\w']+", text.lower()))
    return re.sub(r" (?=<\|)|(?<=\|>) ", "", tokens) or " ".join(text.split())


def shingles(text: str) -> frozenset[str]:
    """Return all pieces of five characters, each unit one of them; a shorter text is its only piece."""
    elements = _ELEMENT.findall(text)
    last = max(1, len(elements) - _SHINGLE + 1)
    return frozenset("".join(elements[start : start + _SHINGLE]) for start in range(last))
