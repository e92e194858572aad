"""Carry spans of words as one source writes them over to the words of a text."""

from __future__ import annotations

import math
from collections.abc import Sequence
from difflib import SequenceMatcher

from slm_plugin.alignment.words import plain
from slm_plugin.records import WordSpan


def carry_over(words: Sequence[str], known: Sequence[WordSpan]) -> tuple[tuple[WordSpan, ...], float]:
    """Give each word the span of what the source calls it.

    Words are compared without case and punctuation. Where the source cuts otherwise (``do n't`` for
    ``don't``) its letters decide, each as long as its share of its span; where it has other words in the same
    number (``<unk>``), position decides; what is left has NaN times.

    Args:
        words: The words of the text.
        known: Spans, in order.

    Returns:
        One span per word, and the share of words (with a letter or digit) that were placed.
    """
    spans: list[WordSpan] = [WordSpan(word, math.nan, math.nan) for word in words]
    spoken = [index for index, word in enumerate(words) if plain(word)]
    heard = [span for span in known if plain(span.word)]
    left = [plain(words[index]) for index in spoken]
    right = [plain(span.word) for span in heard]
    for kind, a, b, c, d in SequenceMatcher(None, left, right, autojunk=False).get_opcodes():
        if kind == "equal" or (kind == "replace" and b - a == d - c):
            for index, span in zip(spoken[a:b], heard[c:d], strict=True):
                spans[index] = WordSpan(words[index], span.start_s, span.end_s)
        elif kind == "replace" and "".join(left[a:b]) == "".join(right[c:d]):
            for index, (start, end) in zip(spoken[a:b], _by_letters(left[a:b], heard[c:d]), strict=True):
                spans[index] = WordSpan(words[index], start, end)
    placed = sum(math.isfinite(spans[index].start_s) for index in spoken)
    return tuple(spans), placed / len(spoken) if spoken else 1.0


def _by_letters(words: Sequence[str], spans: Sequence[WordSpan]) -> list[tuple[float, float]]:
    """Return spans of words whose letters, joined, are those of ``spans``."""
    letters: list[tuple[float, float]] = []
    for span in spans:
        n_letters = len(plain(span.word))
        step = (span.end_s - span.start_s) / n_letters
        letters.extend((span.start_s + i * step, span.start_s + (i + 1) * step) for i in range(n_letters))
    found, position = [], 0
    for word in words:
        found.append((letters[position][0], letters[position + len(word) - 1][1]))
        position += len(word)
    return found
