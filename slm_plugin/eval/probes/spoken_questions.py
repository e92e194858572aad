"""Probe ``spoken_questions``: recordings of questions, answered in writing or aloud.

It takes the sets that spoken question answering is published on as they are:

- ``fixie-ai/llama-questions``, split ``test``: ``audio``, ``question``, ``answer`` (a text);
- ``fixie-ai/spoken-web-questions``, split ``test``: ``audio``, ``question``, ``answers`` (a list);
- ``fixie-ai/trivia_qa-audio``, split ``validation``: ``question_audio``, ``question``, ``answer`` (``value`` and
  ``aliases``).

Source: the sets that the reference of arXiv 2505.17496 answers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from pydantic import Field, model_validator

from slm_plugin.data.recordings import recording_units
from slm_plugin.data.rows import column, text
from slm_plugin.errors import AudioError, DataError
from slm_plugin.eval.judge import load_units_codec
from slm_plugin.eval.match import Match
from slm_plugin.eval.normalise import Normalisation
from slm_plugin.eval.protocol import Generator
from slm_plugin.eval.rows import right_answers
from slm_plugin.eval.spoken import SpokenOptions, score_spoken
from slm_plugin.hookspecs import hookimpl
from slm_plugin.records import Score
from slm_plugin.speech.protocol import Codec


class SpokenQuestions:
    """The share of recorded questions that are answered right: an answer must name a right one in whole words."""

    class Options(SpokenOptions):
        """Options of ``spoken_questions``."""

        data: str
        """Set on the hub, such as ``fixie-ai/llama-questions``, or a local folder or file of the same form."""

        audio: str = "audio|question_audio"
        """Column with the recording; alternatives are separated by ``|``."""

        question: str = "question"
        """Column with the words of the question, which say how well it was heard; may be missing."""

        answer: str = "answers|answer"
        """Column with a right answer, or with several: a list, or a mapping with ``value`` and ``aliases``."""

        match: Match = "contains"
        """Whether the model's answer must equal a right one, or contain it as whole words; punctuation at the edges of
        words counts in neither case."""

        normalise: Normalisation = "english"
        """What does not count: ``case`` and blanks, ``punctuation`` too, or also how ``english`` spells numbers."""

        max_new_tokens: int = Field(default=1024, ge=1)
        """Longest answer: all three sections."""

        @model_validator(mode="after")
        def _codec(self) -> SpokenQuestions.Options:
            if self.codec is None:
                raise ValueError("recordings need a codec, a registered name or a folder.")
            return self

    better: Literal["higher", "lower"] = "higher"
    needs_units = True

    def __init__(self, options: Options) -> None:
        self.options = options

    def score(self, skill: str, generator: Generator) -> Score:
        """Return the share of right answers; unusable recordings count as answered wrong, and are noted.

        Raises:
            DataError: No recording can be used, or a column is missing.
            VocabularyError: Model and codec have different numbers of units.
        """
        assert generator.vocabulary is not None, "needs_units"
        codec = load_units_codec(self.options.codec or "", generator.vocabulary.count)
        rows = self.options.rows()
        questions = [self._question(row, codec) for row in rows]
        if not any(questions):
            raise DataError(f"{self.options.data} has no recording that can be used.")
        asked = [text(row, self.options.question, "") for row in rows]
        expected = [right_answers(row, self.options.answer) for row in rows]
        match = [self.options.match] * len(rows)
        return score_spoken(skill, self.options, generator, questions, asked, expected, match)

    def _question(self, row: dict[str, Any], codec: Codec) -> list[int]:
        try:
            return recording_units(column(row, self.options.audio), codec)
        except AudioError:
            return []


@hookimpl
def slm_register_probes(register: Callable[[str, type], None]) -> None:
    """Offer ``spoken_questions``."""
    register("spoken_questions", SpokenQuestions)
