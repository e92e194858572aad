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
        n: What it is a mean over: items for a share; words, characters or units of the references for an error rate.
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
    return _error_rate([jiwer.process_words(*pair) for pair in zip(references, hypotheses, strict=True)])


def character_error_rate(references: Sequence[str], hypotheses: Sequence[str]) -> Rate:
    """Return the character error rate, blanks included; its standard error is that of :func:`word_error_rate`.

    Args:
        references: What was said, at least one character each.
        hypotheses: What was understood, possibly nothing.
    """
    return _error_rate([jiwer.process_characters(*pair) for pair in zip(references, hypotheses, strict=True)])


def unit_error_rate(references: Sequence[Sequence[int]], hypotheses: Sequence[Sequence[int]]) -> Rate:
    """Return insertions, deletions and substitutions of units per unit of the reference.

    Args:
        references: Units of real speech, at least one each.
        hypotheses: Units that a model wrote, possibly none.
    """
    spelled = [[" ".join(map(str, units)) for units in side] for side in (references, hypotheses)]
    return word_error_rate(*spelled)


def _error_rate(found: Sequence[jiwer.WordOutput | jiwer.CharacterOutput]) -> Rate:
    errors = [one.insertions + one.deletions + one.substitutions for one in found]
    lengths = [one.hits + one.substitutions + one.deletions for one in found]
    n_parts, n_utterances = sum(lengths), len(lengths)
    rate = sum(errors) / n_parts
    items = tuple((float(error), float(length)) for error, length in zip(errors, lengths, strict=True))
    if n_utterances < 2:
        return Rate(rate, n_parts, None, items)
    squares = sum((error - rate * length) ** 2 for error, length in zip(errors, lengths, strict=True))
    return Rate(rate, n_parts, math.sqrt(n_utterances / (n_utterances - 1) * squares) / n_parts, items)
