"""Spoken questions from the hub or from local files, as units."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from slm_plugin.data.recordings import recording_units
from slm_plugin.data.rows import units as read_units
from slm_plugin.data.tables import open_table
from slm_plugin.errors import DataError, suggest
from slm_plugin.infer.options import AUDIO_COLUMNS, SpokenData
from slm_plugin.speech.protocol import Codec


def open_data(data: SpokenData) -> tuple[Any, str]:
    """Open a set of spoken questions without decoding its recordings.

    Returns:
        The rows, and the column with the questions.

    Raises:
        DataError: It cannot be loaded, or lacks its column.
    """
    rows = open_table(data.path, data.subset, data.split, data.n)
    wanted = [data.units] if data.units else [data.audio] if data.audio else list(AUDIO_COLUMNS)
    column = next((name for name in wanted if name in rows.column_names), None)
    if column is None:
        what = f"no column {' or '.join(map(repr, wanted))}"
        raise DataError(f"{data.path} has {what}. {suggest(wanted[0], rows.column_names, 'Columns')}")
    return rows, column


def question_units(row: Mapping[str, Any], column: str, data: SpokenData, codec: Codec) -> list[int]:
    """Return the units of one question.

    Raises:
        AudioError: The recording cannot be read or used.
        DataError: The units are not whole numbers, or the recording is of no known form.
    """
    if data.units is not None:
        return list(read_units(row, column, codec.n_units))
    return recording_units(row[column], codec)
