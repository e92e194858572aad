"""What a training stage must answer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from slm_plugin.records import Sample


class Stage(Protocol):
    """Turns a row of a data set into one training conversation.

    A stage may also implement any of :class:`slm_plugin.hookspecs.StageHooks`, and :class:`ContinuousStage`.

    Attributes:
        columns: What a row needs; alternatives are separated by ``|``, such as ``units|discrete_unit``.
    """

    columns: tuple[str, ...]

    def sample(self, row: Mapping[str, Any], unit_count: int) -> Sample | None:
        """Return the conversation of a row, or None where the row is empty and must be dropped.

        Args:
            row: One row of the data set.
            unit_count: Units in the vocabulary; units are checked against it.

        Raises:
            DataError: A column is missing or holds something else than it should.
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
