"""Probe ``speech_recognition``: the word error rate of transcripts of real speech."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from pydantic import Field

from slm_plugin.data.rows import text
from slm_plugin.eval.protocol import Generator
from slm_plugin.eval.rates import plain, word_error_rate
from slm_plugin.eval.rows import read_rows
from slm_plugin.hookspecs import hookimpl
from slm_plugin.records import Score
from slm_plugin.stages.asr import AsrStage
from slm_plugin.strict import Strict
from slm_plugin.vocabulary import strip_units


class SpeechRecognition:
    """Asks for transcripts the way the stage ``asr`` does in training, from the same columns."""

    class Options(Strict):
        """Options of ``speech_recognition``."""

        data: str
        """JSON lines with ``discrete_unit`` (or ``units``), ``transcription`` (or ``text``), ``instruction``."""

        n: int | None = Field(default=None, ge=1)
        """How many rows; all unless set."""

        max_new_tokens: int = Field(default=64, ge=1)
        """Longest transcript."""

        examples: int = Field(default=3, ge=0)
        """How many transcripts to keep for people to read."""

    better: Literal["higher", "lower"] = "lower"
    needs_units = True

    def __init__(self, options: Options) -> None:
        self.options = options

    def score(self, skill: str, generator: Generator) -> Score:
        """Return the word error rate; units in an answer are passed over."""
        assert generator.vocabulary is not None, "needs_units"
        rows = read_rows(self.options.data, self.options.n)
        samples = [AsrStage().sample(row, generator.vocabulary.count) for row in rows]
        asked = [(sample, text(row, AsrStage.columns[1])) for sample, row in zip(samples, rows, strict=True) if sample]
        answers = generator.answer([sample.user for sample, _ in asked], self.options.max_new_tokens)
        said = [plain(words) for _, words in asked]
        rate = word_error_rate(said, [plain(strip_units(answer)) for answer in answers])
        examples = [
            {"prompt": sample.user, "expected": words, "answer": answer}
            for (sample, words), answer in list(zip(asked, answers, strict=True))[: self.options.examples]
        ]
        return Score(skill, rate.value, rate.n, self.better, rate.standard_error, examples, items=rate.items)


@hookimpl
def slm_register_probes(register: Callable[[str, type], None]) -> None:
    """Offer ``speech_recognition``."""
    register("speech_recognition", SpeechRecognition)
