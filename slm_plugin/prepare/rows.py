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
from slm_plugin.weights.durable import settle

CODEC_KEY = b"slm_codec"
"""Key of a file's schema metadata that says whose units they are."""

WORKING = ".work"
"""Folder of files that are not finished; what a killed process leaves there is never read."""

MARKS = "shards"
"""Folder with a file per finished shard: what it was made from, how many rows it has, what was dropped."""


def schema(kind: str, codec: Codec) -> pa.Schema:
    """Return the columns of ``speech`` or ``chats`` in the units of a codec."""
    # a codec that folds runs says how long each lasted
    unit = pa.int16() if codec.n_units <= 1 << 15 else pa.int32()
    if kind == "speech":
        texts = {"text": pa.string(), **_speech_columns("", unit, codec.folds_runs)}
        return pa.schema({"id": pa.string(), **texts, "speaker": pa.string(), **_SHARED})
    question = {"question_text": pa.string(), **_speech_columns("question_", unit, codec.folds_runs)}
    answer = {"answer_text": pa.string(), **_speech_columns("answer_", unit, codec.folds_runs)}
    short = {"answer": pa.string(), "answers": pa.list_(pa.string())}
    return pa.schema({"id": pa.string(), **question, **answer, **short, "speaker": pa.string(), **_SHARED})


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
    path: Path,
    mark: Path,
    rows: Sequence[Mapping[str, Any]],
    columns: pa.Schema,
    codec: Codec,
    about: Mapping[str, Any],
) -> None:
    """Write a file of rows, then the mark that it is finished; each appears whole or not at all.

    Args:
        path: ``<data set>/<split>/part-00000.parquet``; no file is written where there are no rows, because
            ``datasets`` cannot read one without.
        mark: ``<data set>/shards/00000.json``.
        rows: The rows.
        columns: Their schema.
        codec: Written down with its fingerprint.
        about: What the file was made from and what was dropped.
    """
    names = ("fingerprint", "n_units", "rate_hz", "sample_rate_hz", "folds_runs")
    known = {name: getattr(codec, name) for name in names}
    working = mark.parent.parent / WORKING
    for folder in (path.parent, mark.parent, working):
        folder.mkdir(parents=True, exist_ok=True)
    # several machines may share the folder, so a process number alone is not unique
    suffix = f"{os.uname().nodename}.{os.getpid()}"
    if rows:
        table = pa.Table.from_pylist(list(rows), schema=columns).replace_schema_metadata(
            {CODEC_KEY: json.dumps(known)}
        )
        temporary = working / f"{path.name}.{suffix}"
        pq.write_table(table, temporary, compression="zstd", row_group_size=1000)
        settle(temporary, path)
    temporary = working / f"{mark.name}.{suffix}"
    temporary.write_text(json.dumps({**about, "n_rows": len(rows)}, ensure_ascii=False) + "\n", encoding="utf-8")
    settle(temporary, mark)


def about_shard(path: Path, mark: Path) -> dict[str, Any] | None:
    """Return what a finished file was made from; None where it is not finished, or cannot be read."""
    try:
        about = dict(json.loads(mark.read_text(encoding="utf-8")))
        if about["n_rows"] and pq.read_metadata(path).num_rows != about["n_rows"]:
            return None
    except (OSError, pa.ArrowException, KeyError, ValueError, TypeError):
        return None
    return about
