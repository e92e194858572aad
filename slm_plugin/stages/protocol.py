"""What a training stage must answer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from slm_plugin.records import Sample


class Stage(Protocol):
    """Turns a row of a data set into one training conversation.

    A stage may also implement any of :class:`slm_plugin.hookspecs.StageHooks`, :class:`ContinuousStage`, and
    ``cuts(row, unit_count)``, which returns the lengths of the user and the assistant turn, in characters, at which a
    sample that is longer than ``cutoff_len`` can end so that the two turns still belong together, shortest first.

    Attributes:
        columns: What a row needs; alternatives are separated by ``|``, such as ``units|discrete_unit``.
    """

    columns: tuple[str, ...]

    def sample(self, row: Mapping[str, Any], unit_count: int) -> Sample | None:
        """Return the conversation of a row, or None if the row is empty and must be dropped.

        Args:
            row: One row of the data set.
            unit_count: Units in the vocabulary; units are checked against it.

        Raises:
            DataError: A column is missing or is of another form.
            VocabularyError: A unit is out of range.
        """
        ...


class ContinuousStage(Stage, Protocol):
    """A stage whose rows are also samples of plain language modelling, for LLaMA-Factory's ``stage: pt``."""

    def continuous_text(self, row: Mapping[str, Any], unit_count: int) -> str | None:
        """Return a row as one text without instruction or turns, or None if the row is empty and must be dropped.

        Args:
            row: One row of the data set.
            unit_count: Units in the vocabulary; units are checked against it.

        Raises:
            DataError: A column is missing or holds something else than it should.
            VocabularyError: A unit is out of range.
        """
        ...
