"""Shares and error rates with their standard errors."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import jiwer


@dataclass(frozen=True)
class Rate:
    """A measured rate.

    Attributes:
        value: The rate.
        n: What it is a mean over: items for a share, reference words for an error rate.
        standard_error: Its standard error; None for a single utterance.
        items: ``(numerator, denominator)`` of every item; the value is the sum of the ones over that of the others.
    """

    value: float
    n: int
    standard_error: float | None
    items: tuple[tuple[float, float], ...] = ()


def share(hits: Sequence[bool]) -> Rate:
    """Return the share p of hits; its standard error is ``sqrt(p (1 - p) / n)``."""
    p = sum(hits) / len(hits)
    return Rate(p, len(hits), math.sqrt(p * (1 - p) / len(hits)), tuple((float(hit), 1.0) for hit in hits))


def word_error_rate(references: Sequence[str], hypotheses: Sequence[str]) -> Rate:
    """Return the word error rate: insertions, deletions and substitutions per reference word.

    With e_i errors and n_i words in utterance i of m, W = sum e_i / sum n_i. Words of one utterance
    fail together, so the standard error is that of a ratio over utterances:
    ``sqrt(m / (m - 1) * sum (e_i - W n_i)^2) / sum n_i``.

    Args:
        references: What was said, at least one word each.
        hypotheses: What was understood, possibly nothing.
    """
    errors, lengths = [], []
    for reference, hypothesis in zip(references, hypotheses, strict=True):
        found = jiwer.process_words(reference, hypothesis)
        errors.append(found.insertions + found.deletions + found.substitutions)
        lengths.append(found.hits + found.substitutions + found.deletions)
    n_words, n_utterances = sum(lengths), len(lengths)
    rate = sum(errors) / n_words
    items = tuple((float(error), float(length)) for error, length in zip(errors, lengths, strict=True))
    if n_utterances < 2:
        return Rate(rate, n_words, None, items)
    squares = sum((error - rate * length) ** 2 for error, length in zip(errors, lengths, strict=True))
    return Rate(rate, n_words, math.sqrt(n_utterances / (n_utterances - 1) * squares) / n_words, items)


def plain(text: str) -> str:
    """Return a text in lower case with single blanks, for comparison."""
    return " ".join(text.lower().split())
