"""Probe ``spoken_qa``: spoken questions, answered in writing or aloud."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

from pydantic import Field, model_validator

from slm_plugin.data.rows import text, units
from slm_plugin.eval.judge import load_judge
from slm_plugin.eval.protocol import Generator
from slm_plugin.eval.rates import plain, share, word_error_rate
from slm_plugin.eval.rows import read_rows
from slm_plugin.hookspecs import hookimpl
from slm_plugin.records import Score
from slm_plugin.stages.sqa import SECTION_BREAK, SqaStage
from slm_plugin.strict import Strict
from slm_plugin.vocabulary import strip_units, text_to_units, units_to_text

_SECTIONS = 3


class SpokenQa:
    """The share of spoken questions that are answered right, in the answer section or in the spoken one."""

    class Options(Strict):
        """Options of ``spoken_qa``."""

        data: str
        """JSON lines with ``input_unit`` (or ``question_units``), ``input_pseudo`` (or ``question_text``) and
        ``output_pseudo`` (or ``answer_text``)."""

        speech: bool = False
        """Score what a recogniser understands of the spoken answer; needs ``templates`` and ``codec``."""

        templates: str | None = None
        """The recogniser's templates, JSON lines of ``word`` and ``units``."""

        codec: str | None = None
        """Registered codec, or folder, that the units belong to."""

        n: int | None = Field(default=None, ge=1)
        """How many rows; all unless set."""

        max_new_tokens: int = Field(default=128, ge=1)
        """Longest answer: all three sections."""

        examples: int = Field(default=3, ge=0)
        """How many answers to keep for people to read."""

        @model_validator(mode="after")
        def _judge(self) -> SpokenQa.Options:
            if self.speech and (self.templates is None or self.codec is None):
                raise ValueError("speech: true needs templates and codec.")
            return self

    better: Literal["higher", "lower"] = "higher"
    needs_units = True

    def __init__(self, options: Options) -> None:
        self.options = options

    def score(self, skill: str, generator: Generator) -> Score:
        """Return the share of right answers; the notes say how well the questions were heard."""
        assert generator.vocabulary is not None, "needs_units"
        n_units = generator.vocabulary.count
        rows = read_rows(self.options.data, self.options.n)
        questions = [units_to_text(units(row, SqaStage.columns[0], n_units)) for row in rows]
        asked = [plain(text(row, SqaStage.columns[1])) for row in rows]
        expected = [plain(text(row, SqaStage.columns[2])) for row in rows]
        answers = generator.answer(questions, self.options.max_new_tokens)
        sections = [split_answer(answer) for answer in answers]
        given = self._spoken(sections, n_units) if self.options.speech else [plain(parts[1]) for parts in sections]
        rate = share([answer == right for answer, right in zip(given, expected, strict=True)])
        heard = word_error_rate(asked, [plain(strip_units(parts[0])) for parts in sections])
        examples = [
            {"prompt": question, "expected": right, "answer": answer}
            for question, right, answer in list(zip(asked, expected, answers, strict=True))[: self.options.examples]
        ]
        notes = {"question_wer": heard.value}
        return Score(skill, rate.value, rate.n, self.better, rate.standard_error, examples, notes, rate.items)

    def _spoken(self, sections: Sequence[Sequence[str]], n_units: int) -> list[str]:
        assert self.options.templates is not None, "checked by the options"
        assert self.options.codec is not None, "checked by the options"
        judge = load_judge(self.options.templates, self.options.codec, n_units)
        return judge.recognise([text_to_units(parts[2]) for parts in sections])


def split_answer(answer: str) -> list[str]:
    """Return transcript, answer and interleaved answer; those that are missing are empty."""
    parts = answer.split(SECTION_BREAK, _SECTIONS - 1)
    return parts + [""] * (_SECTIONS - len(parts))


@hookimpl
def slm_register_probes(register: Callable[[str, type], None]) -> None:
    """Offer ``spoken_qa``."""
    register("spoken_qa", SpokenQa)
