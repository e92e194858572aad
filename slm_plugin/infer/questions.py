"""Spoken questions from the hub or from local files, as units."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from slm_plugin.data.rows import units as read_units
from slm_plugin.errors import AudioError, DataError, suggest
from slm_plugin.infer.options import SpokenData
from slm_plugin.speech import audio
from slm_plugin.speech.protocol import Codec

_FORMATS = {".parquet": "parquet", ".jsonl": "json", ".json": "json", ".csv": "csv"}


def open_data(data: SpokenData) -> Any:
    """Open a set of spoken questions without decoding its recordings.

    Raises:
        DataError: It cannot be loaded, or lacks its column.
    """
    import datasets

    try:
        rows = _load(data)
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        raise DataError(f"{data.path} cannot be loaded: {' '.join(str(error).split())[:300]}") from None
    column = data.units or data.audio_column
    if column not in rows.column_names:
        raise DataError(f"{data.path} has no column {column!r}. {suggest(column, rows.column_names, 'Columns')}")
    if data.units is None and isinstance(rows.features[column], datasets.Audio):
        # decoding through datasets needs FFmpeg's libraries; the bytes are enough
        rows = rows.cast_column(column, datasets.Audio(decode=False))
    return rows if data.n is None else rows.select(range(min(data.n, len(rows))))


def _load(data: SpokenData) -> Any:
    import datasets

    path = Path(data.path)
    if not path.exists():
        return datasets.load_dataset(data.path, data.subset, split=data.split)
    if path.is_file():
        if path.suffix not in _FORMATS:
            raise ValueError(f"files are {', '.join(_FORMATS)}, not {path.suffix!r}.")
        return datasets.load_dataset(_FORMATS[path.suffix], data_files=str(path), split="train")
    if (path / "dataset_info.json").is_file() and (path / "state.json").is_file():
        return datasets.load_from_disk(str(path))
    return datasets.load_dataset(str(path), data.subset, split=data.split)


def question_units(row: Mapping[str, Any], data: SpokenData, codec: Codec) -> list[int]:
    """Return the units of one question.

    Raises:
        AudioError: The recording cannot be read or used.
        DataError: The units are not whole numbers, or the recording is of no known form.
    """
    if data.units is not None:
        return list(read_units(row, data.units, codec.n_units))
    recording = row[data.audio_column]
    wave, rate_hz = _wave(recording)
    return list(codec.encode(audio.prepare(wave, rate_hz, codec.sample_rate_hz)).values)


def _wave(recording: Any) -> tuple[Any, int]:
    if isinstance(recording, Mapping):
        if recording.get("array") is not None:
            import numpy as np

            return np.asarray(recording["array"], np.float32), int(recording["sampling_rate"])
        source = recording.get("bytes") or recording.get("path")
        if source:
            return audio.decode(source)
    if isinstance(recording, str | bytes):
        return audio.decode(recording)
    raise AudioError(f"a recording is a file, bytes, or samples with a rate, got {type(recording).__name__}.")
