"""Aligners without a model: spans that came with the recording, and characters spread evenly."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from pydantic import Field

from slm_plugin.alignment.matching import carry_over
from slm_plugin.alignment.protocol import Alignment
from slm_plugin.errors import AlignmentError
from slm_plugin.hookspecs import hookimpl
from slm_plugin.records import WordSpan
from slm_plugin.strict import Strict


class Matched(Strict):
    """How much of a text must be found among the words of a source."""

    min_matched: float = Field(default=0.5, ge=0, le=1)
    """Share of words that must be placed; with fewer the recording is dropped."""


def matched(name: str, words: Sequence[str], known: Sequence[WordSpan], options: Matched) -> Alignment:
    """Carry spans over to the words of a text.

    Raises:
        AlignmentError: There are no spans, or too few of the words are among them.
    """
    if not known:
        raise AlignmentError(f"{name} has no word times.")
    spans, share = carry_over(words, known)
    if share < options.min_matched:
        raise AlignmentError(
            f"only {share:.0%} of the words of {name} are among its word times, fewer than the"
            f" {options.min_matched:.0%} of min_matched; is it another text?"
        )
    return Alignment(spans, share)


class SourceAligner:
    """Takes the word times that came with the recording, such as those of a synthesiser."""

    Options = Matched
    licence = ""

    def __init__(self, options: Matched) -> None:
        self._options = options
        self.fingerprint = "source"

    def align(
        self, name: str, wave_N: np.ndarray, sample_rate_hz: int, words: Sequence[str], known: Sequence[WordSpan]
    ) -> Alignment:
        """Return the spans that came with the recording, for the words as the text writes them."""
        return matched(name, words, known, self._options)


class EvenAligner:
    """Knows no times: every word lasts as long as its share of the characters."""

    class Options(Strict):
        """It has none."""

    licence = ""

    def __init__(self, options: Options) -> None:
        self.fingerprint = "even"

    def align(
        self, name: str, wave_N: np.ndarray, sample_rate_hz: int, words: Sequence[str], known: Sequence[WordSpan]
    ) -> Alignment:
        """Return spans without times, which interleaving spreads."""
        return Alignment(tuple(WordSpan(word, math.nan, math.nan) for word in words))


@hookimpl
def slm_register_aligners(register: Callable[[str, type[Any]], None]) -> None:
    """Offer ``source`` and ``even``."""
    register("source", SourceAligner)
    register("even", EvenAligner)
