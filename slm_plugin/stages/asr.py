"""Stage ``asr``: speech units in, text out.

Source: arXiv 2505.17496, stage 1; column names as in its published data sets.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from slm_plugin.data import rows
from slm_plugin.errors import SlmError
from slm_plugin.hookspecs import hookimpl
from slm_plugin.records import Sample
from slm_plugin.vocabulary import units_to_text

INSTRUCTION = "Please repeat the following words: "
WORDS = "words|interleaf"
"""Columns, if there are any, that tell which units are which word's."""


class AsrStage:
    """User turn = instruction followed by the units, assistant turn = what is said."""

    columns = ("units|discrete_unit", "text|transcription")

    def sample(self, row: Mapping[str, Any], unit_count: int) -> Sample | None:
        """Return the conversation of a row; None without units or words.

        Example: instruction ``Repeat: ``, units ``[3, 7]``, text ``anna`` give the user turn
        ``Repeat: <|3|><|7|>`` and the assistant turn ``anna``.
        """
        units = rows.units(row, self.columns[0], unit_count)
        said = rows.text(row, self.columns[1])
        if not units or not said.strip():
            return None
        return Sample(rows.text(row, "instruction", INSTRUCTION) + units_to_text(units), said)

    def cuts(self, row: Mapping[str, Any], unit_count: int) -> Sequence[tuple[int, int]]:
        """Return where a sample can be shortened; nowhere if the row does not tell which units are which word's."""
        if all(row.get(name) is None for name in WORDS.split("|")):
            return ()
        try:
            spoken = rows.interleaved(row, WORDS, unit_count)
        except SlmError:
            # a column that the sample itself does not need
            return ()
        units = rows.units(row, self.columns[0], unit_count)
        points = rows.cut_points(spoken, units, rows.text(row, self.columns[1]))
        head = len(rows.text(row, "instruction", INSTRUCTION))
        return [(head + len(units_to_text(units[:n_units])), n_characters) for n_units, n_characters in points]

    def continuous_text(self, row: Mapping[str, Any], unit_count: int) -> str | None:
        """Return the units alone, ``<|3|><|7|>``; None without units. The words need not be there."""
        return units_to_text(rows.units(row, self.columns[0], unit_count)) or None


@hookimpl
def slm_register_stages(register: Callable[[str, type], None]) -> None:
    """Offer ``asr``."""
    register("asr", AsrStage)
