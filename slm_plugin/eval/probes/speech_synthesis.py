"""Probe ``speech_synthesis``: how well a recogniser understands what the model says."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from pydantic import Field

from slm_plugin.data.rows import text
from slm_plugin.eval.judge import load_judge
from slm_plugin.eval.protocol import Generator
from slm_plugin.eval.rates import plain, word_error_rate
from slm_plugin.eval.recogniser import ceiling
from slm_plugin.eval.rows import read_rows
from slm_plugin.hookspecs import hookimpl
from slm_plugin.records import Score
from slm_plugin.stages.tts import TtsStage
from slm_plugin.strict import Strict
from slm_plugin.vocabulary import text_to_units


class SpeechSynthesis:
    """Asks for speech the way the stage ``tts`` does in training, and has a recogniser listen to the units."""

    class Options(Strict):
        """Options of ``speech_synthesis``."""

        data: str
        """JSON lines with ``transcription`` (or ``text``), ``interleaf`` (or ``words``) and ``discrete_unit``
        (or ``units``) of real speech, which gives the recogniser's own error rate."""

        templates: str
        """The recogniser's templates, JSON lines of ``word`` and ``units``."""

        codec: str
        """Registered codec, or folder, that the units belong to."""

        n: int | None = Field(default=None, ge=1)
        """How many rows; all unless set."""

        max_new_tokens: int = Field(default=128, ge=1)
        """Longest answer: words and units."""

        examples: int = Field(default=3, ge=0)
        """How many answers to keep for people to read."""

    better: Literal["higher", "lower"] = "lower"
    needs_units = True

    def __init__(self, options: Options) -> None:
        self.options = options

    def score(self, skill: str, generator: Generator) -> Score:
        """Return the word error rate of the recogniser; its own one on real speech stands in the notes."""
        assert generator.vocabulary is not None, "needs_units"
        n_units = generator.vocabulary.count
        judge = load_judge(self.options.templates, self.options.codec, n_units)
        rows = read_rows(self.options.data, self.options.n)
        samples = [TtsStage().sample(row, n_units) for row in rows]
        asked = [(sample, text(row, TtsStage.columns[0])) for sample, row in zip(samples, rows, strict=True) if sample]
        answers = generator.answer([sample.user for sample, _ in asked], self.options.max_new_tokens)
        heard = judge.recognise([text_to_units(answer) for answer in answers])
        rate = word_error_rate([plain(words) for _, words in asked], heard)
        examples = [
            {"prompt": sample.user, "expected": words, "answer": f"{answer} (heard: {understood})"}
            for (sample, words), answer, understood in list(zip(asked, answers, heard, strict=True))[
                : self.options.examples
            ]
        ]
        notes = {"recogniser_wer": ceiling(judge, rows, n_units).value}
        return Score(skill, rate.value, rate.n, self.better, rate.standard_error, examples, notes, rate.items)


@hookimpl
def slm_register_probes(register: Callable[[str, type], None]) -> None:
    """Offer ``speech_synthesis``."""
    register("speech_synthesis", SpeechSynthesis)
