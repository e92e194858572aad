"""Columns of prepared data, and the Parquet files that hold them.

Units are integers of the smallest type that the codec's vocabulary fits in; text is made of them only where a
stage asks. ``words`` are ``{"text", "units"}`` whose texts are verbatim, blanks included.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from slm_plugin.speech.protocol import Codec

SHARD_KEY = b"slm_shard"
"""Key of a file's schema metadata that says what the file was made from, and what was dropped."""

CODEC_KEY = b"slm_codec"


def schema(kind: str, codec: Codec) -> pa.Schema:
    """Return the columns of ``speech`` or ``chats`` in the units of a codec."""
    # a codec that folds runs says how long each lasted
    unit = pa.int16() if codec.n_units <= 1 << 15 else pa.int32()
    if kind == "speech":
        texts = {"text": pa.string(), **_speech_columns("", unit, codec.folds_runs)}
        return pa.schema({"id": pa.string(), **texts, "speaker": pa.string(), **_SHARED})
    question = {"question_text": pa.string(), **_speech_columns("question_", unit, codec.folds_runs)}
    answer = {"answer_text": pa.string(), **_speech_columns("answer_", unit, codec.folds_runs)}
    return pa.schema({"id": pa.string(), **question, **answer, "speaker": pa.string(), **_SHARED})


_SHARED = {"language": pa.string(), "flags": pa.list_(pa.string())}


def _speech_columns(prefix: str, unit: pa.DataType, folded: bool) -> dict[str, pa.DataType]:
    units = pa.list_(unit)
    return {
        f"{prefix}units": units,
        **({f"{prefix}durations": pa.list_(pa.int16())} if folded else {}),
        f"{prefix}words": pa.list_(pa.struct({"text": pa.string(), "units": units})),
        f"{prefix}spans": pa.list_(pa.struct({"word": pa.string(), "start_s": pa.float32(), "end_s": pa.float32()})),
        f"{prefix}seconds": pa.float32(),
        f"{prefix}alignment": pa.float32(),
    }


def write_shard(
    path: Path, rows: Sequence[Mapping[str, Any]], columns: pa.Schema, codec: Codec, about: Mapping[str, Any]
) -> None:
    """Write a file of rows under a temporary name beside the folder and move it into place.

    Args:
        path: ``<data set>/<split>/part-00000.parquet``.
        rows: The rows.
        columns: Their schema.
        codec: Written down with its fingerprint.
        about: What the file was made from and what was dropped.
    """
    known = {
        name: getattr(codec, name) for name in ("fingerprint", "n_units", "rate_hz", "sample_rate_hz", "folds_runs")
    }
    metadata = {CODEC_KEY: json.dumps(known), SHARD_KEY: json.dumps(about, ensure_ascii=False)}
    table = pa.Table.from_pylist(list(rows), schema=columns).replace_schema_metadata(metadata)
    working = path.parent.parent / WORKING
    for folder in (path.parent, working):
        folder.mkdir(parents=True, exist_ok=True)
    # several machines may share the folder, so a process number alone is not unique
    temporary = working / f"{path.name}.{os.uname().nodename}.{os.getpid()}"
    pq.write_table(table, temporary, compression="zstd", row_group_size=1000)
    with temporary.open("rb+") as file:
        os.fsync(file.fileno())
    temporary.replace(path)


WORKING = ".work"
"""Folder of files that are not finished; what a killed process leaves there is never read."""


def about_shard(path: Path) -> dict[str, Any] | None:
    """Return what a finished file was made from; None where there is none or it cannot be read."""
    try:
        metadata = pq.read_schema(path).metadata or {}
        return dict(json.loads(metadata[SHARD_KEY]))
    except (OSError, pa.ArrowException, KeyError, ValueError):
        return None
