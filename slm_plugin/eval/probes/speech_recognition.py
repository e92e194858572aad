"""Probe ``speech_recognition``: the error rate of transcripts of real speech, in words or in characters."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

from pydantic import Field

from slm_plugin.data.rows import text
from slm_plugin.errors import DataError
from slm_plugin.eval.normalise import Normalisation, bare_words, normaliser
from slm_plugin.eval.protocol import Generator
from slm_plugin.eval.rates import character_error_rate, word_error_rate
from slm_plugin.eval.rows import DataOptions, answerable
from slm_plugin.hookspecs import hookimpl
from slm_plugin.records import Score
from slm_plugin.stages.asr import AsrStage
from slm_plugin.vocabulary import strip_units


class SpeechRecognition:
    """Asks for transcripts the way the stage ``asr`` does in training, from the same columns."""

    class Options(DataOptions):
        """Options of ``speech_recognition``."""

        data: str
        """Rows with ``discrete_unit`` (or ``units``), ``transcription`` (or ``text``) and ``instruction``."""

        errors_in: Literal["words", "characters"] = "words"
        """What the rate counts; the other rate stands in the notes."""

        normalise: Normalisation = "case"
        """What does not count: ``case`` and blanks, ``punctuation`` too, or also how ``english`` spells numbers."""

        max_new_tokens: int = Field(default=64, ge=1)
        """Longest transcript."""

    better: Literal["higher", "lower"] = "lower"
    needs_units = True

    def __init__(self, options: Options) -> None:
        self.options = options

    def score(self, skill: str, generator: Generator) -> Score:
        """Return the error rate; units in an answer and rows whose transcript has no word do not count.

        The notes give the share of rows without units or transcript, and the word error rate without punctuation if it
        differs from that with it.

        Raises:
            DataError: No row can be scored.
        """
        assert generator.vocabulary is not None, "needs_units"
        same = normaliser(self.options.normalise)
        rows = self.options.rows()
        samples = [AsrStage().sample(row, generator.vocabulary.count) for row in rows]
        said = [same(text(row, AsrStage.columns[1])) for row in rows]
        unusable = answerable(rows, samples, self.options.data, "units and a transcript")
        asked = [(sample.user, words) for sample, words in zip(samples, said, strict=True) if sample and words]
        if not asked:
            raise DataError(f"no transcript of {self.options.data} has a word (normalise: {self.options.normalise}).")
        answers = generator.answer([prompt for prompt, _ in asked], self.options.max_new_tokens)
        pairs = [words for _, words in asked], [same(strip_units(answer)) for answer in answers]
        rates = {"words": word_error_rate(*pairs), "characters": character_error_rate(*pairs)}
        bare = self._without_punctuation(*pairs, rates["words"].value)
        rate = rates.pop(self.options.errors_in)
        notes = {f"errors_per_{name.removesuffix('s')}": other.value for name, other in rates.items()}
        notes |= bare | unusable
        shown = self.options.shown((*found, answer) for found, answer in zip(asked, answers, strict=True))
        return Score(skill, rate.value, rate.n, self.better, rate.standard_error, shown, notes, rate.items)

    def _without_punctuation(self, said: Sequence[str], found: Sequence[str], counted: float) -> dict[str, float]:
        """Return the word error rate without punctuation at the edges of words, if it is another than ``counted``."""
        bare = [pair for pair in zip(map(bare_words, said), map(bare_words, found), strict=True) if pair[0]]
        rate = word_error_rate(*zip(*bare, strict=True)).value if bare else counted
        return {} if rate == counted else {"errors_per_word_without_punctuation": rate}


@hookimpl
def slm_register_probes(register: Callable[[str, type], None]) -> None:
    """Offer ``speech_recognition``."""
    register("speech_recognition", SpeechRecognition)
