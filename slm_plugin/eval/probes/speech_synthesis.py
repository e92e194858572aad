"""Probe ``speech_synthesis``: how well a recogniser understands what the model says."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from pydantic import Field, model_validator

from slm_plugin.data.rows import text
from slm_plugin.errors import DataError
from slm_plugin.eval.judge import JudgeOptions, load_judge
from slm_plugin.eval.normalise import Normalisation, normaliser
from slm_plugin.eval.protocol import Generator
from slm_plugin.eval.rates import word_error_rate
from slm_plugin.eval.recogniser import ceiling
from slm_plugin.eval.rows import answerable
from slm_plugin.hookspecs import hookimpl
from slm_plugin.records import Score
from slm_plugin.stages.tts import TtsStage
from slm_plugin.vocabulary import text_to_units


class SpeechSynthesis:
    """Asks for speech the way the stage ``tts`` does in training, and has a recogniser listen to the units."""

    class Options(JudgeOptions):
        """Options of ``speech_synthesis``."""

        data: str
        """Rows with ``transcription`` (or ``text``), ``interleaf`` (or ``words``) and ``discrete_unit`` (or
        ``units``) of real speech, which gives the recogniser's own error rate."""

        normalise: Normalisation | None = None
        """What does not count: ``case`` and blanks, ``punctuation`` too, or also how ``english`` spells numbers.
        Unless set, ``case`` with ``templates`` and ``punctuation`` with ``whisper``, which writes punctuation."""

        max_new_tokens: int = Field(default=128, ge=1)
        """Longest answer: words and units."""

        @model_validator(mode="after")
        def _judge(self) -> SpeechSynthesis.Options:
            self.check_judge()
            return self

    better: Literal["higher", "lower"] = "lower"
    needs_units = True

    def __init__(self, options: Options) -> None:
        self.options = options

    def score(self, skill: str, generator: Generator) -> Score:
        """Return the word error rate of the recogniser; its own one on real speech stands in the notes.

        Raises:
            DataError: No row can be scored.
        """
        assert generator.vocabulary is not None, "needs_units"
        n_units = generator.vocabulary.count
        judge = load_judge(self.options, n_units)
        same = normaliser(self.options.normalise or ("case" if self.options.whisper is None else "punctuation"))
        rows = [row for row in self.options.rows() if same(text(row, TtsStage.columns[0]))]
        if not rows:
            raise DataError(f"no text of {self.options.data} has a word.")
        samples = [TtsStage().sample(row, n_units) for row in rows]
        unusable = answerable(rows, samples, self.options.data, "a text and its words with units")
        asked = [
            (sample.user, text(row, TtsStage.columns[0])) for sample, row in zip(samples, rows, strict=True) if sample
        ]
        answers = generator.answer([prompt for prompt, _ in asked], self.options.max_new_tokens)
        heard = judge.recognise([text_to_units(answer) for answer in answers])
        rate = word_error_rate([same(words) for _, words in asked], [same(words) for words in heard])
        listened = [f"{answer} (heard: {words})" for answer, words in zip(answers, heard, strict=True)]
        shown = self.options.shown((*found, answer) for found, answer in zip(asked, listened, strict=True))
        notes = {"recogniser_wer": ceiling(judge, rows, n_units, same).value} | unusable
        return Score(skill, rate.value, rate.n, self.better, rate.standard_error, shown, notes, rate.items)


@hookimpl
def slm_register_probes(register: Callable[[str, type], None]) -> None:
    """Offer ``speech_synthesis``."""
    register("speech_synthesis", SpeechSynthesis)
