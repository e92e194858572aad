"""The records that pass between the parts of a synthesis."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from slm_plugin.generation.protocol import Answer


@dataclass(frozen=True)
class Draft:
    """A row in the making.

    Attributes:
        row: Columns that are given, such as the text to be spoken.
        user: The user turn to answer.
    """

    row: dict[str, Any]
    user: str


@dataclass(frozen=True)
class Candidate:
    """A complete row, before any filter.

    Attributes:
        row: The columns of the stage.
        text: User and assistant turn as one text, for the comparison with other rows.
        answer: The assistant turn.
        written: What the model wrote of it.
    """

    row: dict[str, Any]
    text: str
    answer: str
    written: Answer
