"""Probe ``interleave_form``: whether what the model says aloud is words and units in a form that can be played."""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import groupby
from typing import Literal

from pydantic import Field

from slm_plugin.data.rows import text
from slm_plugin.eval.normalise import plain
from slm_plugin.eval.protocol import Generator
from slm_plugin.eval.rates import share
from slm_plugin.eval.rows import DataOptions, answerable
from slm_plugin.hookspecs import hookimpl
from slm_plugin.records import Score
from slm_plugin.stages.tts import TtsStage
from slm_plugin.vocabulary import UNIT_SPELLING, strip_units, text_to_units

_UNITS = re.compile(f"((?:{UNIT_SPELLING})+)")

FAULTS = ("no_units", "units_before_words", "words_without_units", "other_words", "runaway_units")
"""What can be wrong with an answer; an answer may have several faults."""


class InterleaveForm:
    """Asks for speech the way the stage ``tts`` does in training, and looks at the form of the answer alone.

    An answer is well formed when it begins with a word, every piece of text has at most ``words_before_units``
    words and is followed by units, its words are those asked for, and no unit repeats without end.
    """

    class Options(DataOptions):
        """Options of ``interleave_form``."""

        data: str
        """Rows with ``transcription`` (or ``text``) and ``interleaf`` (or ``words``)."""

        words_before_units: int = Field(default=3, ge=1)
        """Words that may stand together before their units."""

        max_unit_repeats: int = Field(default=20, ge=1)
        """How often one unit may follow itself."""

        max_new_tokens: int = Field(default=128, ge=1)
        """Longest answer: words and units."""

    better: Literal["higher", "lower"] = "higher"
    needs_units = True

    def __init__(self, options: Options) -> None:
        self.options = options

    def score(self, skill: str, generator: Generator) -> Score:
        """Return the share of well-formed answers; the notes give the share of answers with each fault.

        Raises:
            DataError: No row can be scored.
        """
        assert generator.vocabulary is not None, "needs_units"
        rows = self.options.rows()
        samples = [TtsStage().sample(row, generator.vocabulary.count) for row in rows]
        unusable = answerable(rows, samples, self.options.data, "a text and its words with units")
        asked = [(sample, text(row, TtsStage.columns[0])) for sample, row in zip(samples, rows, strict=True) if sample]
        answers = generator.answer([sample.user for sample, _ in asked], self.options.max_new_tokens)
        found = [self.faults(answer, words) for answer, (_, words) in zip(answers, asked, strict=True)]
        rate = share([not faults for faults in found])
        notes = {fault: sum(fault in faults for faults in found) / len(found) for fault in FAULTS} | unusable
        shown = self.options.shown(
            (sample.user, words, f"{answer} ({', '.join(faults)})")
            for (sample, words), answer, faults in zip(asked, answers, found, strict=True)
            if faults
        )
        return Score(skill, rate.value, rate.n, self.better, rate.standard_error, shown, notes, rate.items)

    def faults(self, answer: str, asked: str) -> list[str]:
        """Return the faults of an answer, in the order of :data:`FAULTS`."""
        pieces = _UNITS.split(answer)
        texts, units = [piece.split() for piece in pieces[::2]], text_to_units(answer)
        longest = max((len(list(run)) for _, run in groupby(units)), default=0)
        wrong = {
            "no_units": not units,
            "units_before_words": bool(units) and not texts[0],
            "words_without_units": bool(texts[-1]) or any(len(t) > self.options.words_before_units for t in texts),
            # units may stand inside a word and before punctuation, so blanks say nothing
            "other_words": _letters(strip_units(answer)) != _letters(asked),
            "runaway_units": longest > self.options.max_unit_repeats,
        }
        return [fault for fault in FAULTS if wrong[fault]]


def _letters(text: str) -> str:
    return plain(text).replace(" ", "")


@hookimpl
def slm_register_probes(register: Callable[[str, type], None]) -> None:
    """Offer ``interleave_form``."""
    register("interleave_form", InterleaveForm)
