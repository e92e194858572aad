"""Stage ``sqa``: a spoken question in; its transcript, the answer, and the answer spoken out.

Source: arXiv 2505.17496, stage 3; column names as in its published data sets.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from slm_plugin.data import rows
from slm_plugin.hookspecs import hookimpl
from slm_plugin.records import Sample
from slm_plugin.vocabulary import text_to_units, units_to_text

SECTION_BREAK = "\n\n"
"""Stands between transcript, answer and interleaved answer."""

UNSPEAKABLE = frozenset({"Data analysis", "Coding & Debugging", "Math"})
"""Values of ``task_category`` whose answers nobody would say aloud; their rows are dropped."""


class SqaStage:
    """User turn = units of the question, assistant turn = transcript, answer, interleaved answer."""

    columns = (
        "question_units|input_unit",
        "question_text|input_pseudo",
        "answer_text|output_pseudo",
        "answer_words|output_7306_interleaf",
    )

    def sample(self, row: Mapping[str, Any], unit_count: int) -> Sample | None:
        """Return the conversation of a row; None where a part is empty or the category is not speakable."""
        if row.get("task_category") in UNSPEAKABLE:
            return None
        question = rows.units(row, self.columns[0], unit_count)
        heard, answer = rows.text(row, self.columns[1]), rows.text(row, self.columns[2])
        spoken = rows.interleaved(row, self.columns[3], unit_count)
        if not question or not heard.strip() or not answer.strip() or not text_to_units(spoken):
            return None
        return Sample(units_to_text(question), SECTION_BREAK.join((heard, answer, spoken)))

    def continuous_text(self, row: Mapping[str, Any], unit_count: int) -> str | None:
        """Return the units of the question and the interleaved answer; None if either has no unit.

        Example: ``<|3|><|7|>``, a blank line, ``anna<|3|><|7|>``.
        """
        if row.get("task_category") in UNSPEAKABLE:
            return None
        question = rows.units(row, self.columns[0], unit_count)
        spoken = rows.interleaved(row, self.columns[3], unit_count)
        if not question or not text_to_units(spoken):
            return None
        return units_to_text(question) + SECTION_BREAK + spoken


@hookimpl
def slm_register_stages(register: Callable[[str, type], None]) -> None:
    """Offer ``sqa``."""
    register("sqa", SqaStage)
