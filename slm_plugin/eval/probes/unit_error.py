"""Probe ``unit_error``: how far the units that a model says are from those of a recording of the same words."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import groupby
from typing import Literal

from pydantic import Field

from slm_plugin.data.rows import text
from slm_plugin.eval.protocol import Generator
from slm_plugin.eval.rates import unit_error_rate
from slm_plugin.eval.rows import DataOptions, answerable
from slm_plugin.hookspecs import hookimpl
from slm_plugin.records import Score
from slm_plugin.stages.tts import TtsStage
from slm_plugin.vocabulary import text_to_units


class UnitError:
    """Asks for speech the way the stage ``tts`` does in training, and compares units one by one.

    A model that speaks well at another pace than the recording has errors too: read it beside
    ``speech_synthesis``, and across stages rather than as such.
    """

    class Options(DataOptions):
        """Options of ``unit_error``."""

        data: str
        """Rows with ``transcription`` (or ``text``) and ``interleaf`` (or ``words``)."""

        fold_runs: bool = True
        """Whether runs of one unit count as a single one, so that how long it lasts is no error."""

        max_new_tokens: int = Field(default=128, ge=1)
        """Longest answer: words and units."""

    better: Literal["higher", "lower"] = "lower"
    needs_units = True

    def __init__(self, options: Options) -> None:
        self.options = options

    def score(self, skill: str, generator: Generator) -> Score:
        """Return the edit distance to the recordings' units, per unit of theirs.

        Raises:
            DataError: No row can be scored.
        """
        assert generator.vocabulary is not None, "needs_units"
        rows = self.options.rows()
        samples = [TtsStage().sample(row, generator.vocabulary.count) for row in rows]
        unusable = answerable(rows, samples, self.options.data, "a text and its words with units")
        asked = [
            (sample.user, text(row, TtsStage.columns[0]), sample.assistant)
            for row, sample in zip(rows, samples, strict=True)
            if sample
        ]
        answers = generator.answer([prompt for prompt, _, _ in asked], self.options.max_new_tokens)
        real = [self._units(spoken) for _, _, spoken in asked]
        rate = unit_error_rate(real, [self._units(answer) for answer in answers])
        shown = self.options.shown((*found[:2], answer) for found, answer in zip(asked, answers, strict=True))
        return Score(skill, rate.value, rate.n, self.better, rate.standard_error, shown, unusable, rate.items)

    def _units(self, spoken: str) -> Sequence[int]:
        units = text_to_units(spoken)
        return [unit for unit, _ in groupby(units)] if self.options.fold_runs else units


@hookimpl
def slm_register_probes(register: Callable[[str, type], None]) -> None:
    """Offer ``unit_error``."""
    register("unit_error", UnitError)
