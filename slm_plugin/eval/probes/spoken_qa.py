"""Probe ``spoken_qa``: spoken questions, given as units, answered in writing or aloud."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from slm_plugin.data.rows import interleaved, text, units
from slm_plugin.eval.match import Match
from slm_plugin.eval.protocol import Generator
from slm_plugin.eval.rows import SHORT_ANSWER, has_text, right_answers
from slm_plugin.eval.spoken import SpokenOptions, score_spoken
from slm_plugin.hookspecs import hookimpl
from slm_plugin.records import Score
from slm_plugin.stages.sqa import SqaStage
from slm_plugin.vocabulary import text_to_units


class SpokenQa:
    """The share of spoken questions that are answered right, in the answer section or in the spoken one."""

    class Options(SpokenOptions):
        """Options of ``spoken_qa``."""

        data: str
        """Rows with ``input_unit`` (or ``question_units``), ``input_pseudo`` (or ``question_text``) and ``answer``, a
        short right answer, or ``answers``, several; a row without them is scored against the whole text,
        ``output_pseudo`` (or ``answer_text``)."""

        match: Match | None = None
        """Whether the model's answer must equal a right one (``exact``), or contain it as whole words (``contains``);
        unless set, ``contains`` for rows with a short answer and ``exact`` for the others. Punctuation at the edges of
        words counts in neither case."""

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
        # a column may be there and empty beside one that is not
        named = [next((name for name in SHORT_ANSWER.split("|") if has_text(row, name)), None) for row in rows]
        expected = [right_answers(row, name or SqaStage.columns[2]) for row, name in zip(rows, named, strict=True)]
        match = [self.options.match or ("contains" if name else "exact") for name in named]
        real = self._real(rows, generator.vocabulary.count) if self.options.speech else []
        return score_spoken(skill, self.options, generator, questions, asked, expected, match, real)

    @staticmethod
    def _real(rows: Sequence[Mapping[str, Any]], n_units: int) -> list[dict[str, Any]]:
        """Return the spoken answers of the data with their words, as far as the rows have them."""
        found = []
        for row in rows:
            if any(row.get(name) is not None for name in SqaStage.columns[3].split("|")):
                spoken = text_to_units(interleaved(row, SqaStage.columns[3], n_units))
                said = text(row, SqaStage.columns[2])
                found += [{"units": spoken, "text": said}] if spoken and said.strip() else []
        return found


@hookimpl
def slm_register_probes(register: Callable[[str, type], None]) -> None:
    """Offer ``spoken_qa``."""
    register("spoken_qa", SpokenQa)
