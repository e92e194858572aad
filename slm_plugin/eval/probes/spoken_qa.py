"""Probe ``spoken_qa``: spoken questions, given as units, answered in writing or aloud."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from slm_plugin.data.rows import text, units
from slm_plugin.eval.protocol import Generator
from slm_plugin.eval.rows import right_answers
from slm_plugin.eval.spoken import SpokenOptions, score_spoken
from slm_plugin.hookspecs import hookimpl
from slm_plugin.records import Score
from slm_plugin.stages.sqa import SqaStage


class SpokenQa:
    """The share of spoken questions that are answered right, in the answer section or in the spoken one."""

    class Options(SpokenOptions):
        """Options of ``spoken_qa``."""

        data: str
        """Rows with ``input_unit`` (or ``question_units``), ``input_pseudo`` (or ``question_text``) and
        ``output_pseudo`` (or ``answer_text``)."""

    better: Literal["higher", "lower"] = "higher"
    needs_units = True

    def __init__(self, options: Options) -> None:
        self.options = options

    def score(self, skill: str, generator: Generator) -> Score:
        """Return the share of right answers; the notes say how well the questions were heard."""
        assert generator.vocabulary is not None, "needs_units"
        rows = self.options.rows()
        questions = [units(row, SqaStage.columns[0], generator.vocabulary.count) for row in rows]
        asked = [text(row, SqaStage.columns[1]) for row in rows]
        expected = [right_answers(row, SqaStage.columns[2]) for row in rows]
        return score_spoken(skill, self.options, generator, questions, asked, expected)


@hookimpl
def slm_register_probes(register: Callable[[str, type], None]) -> None:
    """Offer ``spoken_qa``."""
    register("spoken_qa", SpokenQa)
