"""Write rows: training sets as Parquet, evaluation sets as JSON lines."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq


def write_parquet(path: Path, rows: Iterable[Mapping[str, Any]]) -> int:
    """Write rows as Parquet, lists of units as 16-bit integers; return how many."""
    rows = list(rows)
    columns = {}
    for name in rows[0]:
        values = [row[name] for row in rows]
        columns[name] = pa.array(values, pa.list_(pa.int16()) if isinstance(values[0], list) else pa.string())
    temporary = path.with_name(f".{path.name}.partial")
    pq.write_table(pa.table(columns), temporary, compression="zstd", compression_level=19)
    temporary.replace(path)
    return len(rows)


def write_lines(path: Path, rows: Iterable[Mapping[str, Any]]) -> int:
    """Write rows as JSON lines; return how many."""
    texts = [json.dumps(row, ensure_ascii=False, separators=(",", ":")) for row in rows]
    temporary = path.with_name(f".{path.name}.partial")
    temporary.write_text("".join(f"{text}\n" for text in texts), encoding="utf-8")
    temporary.replace(path)
    return len(texts)


def write_wave(path: Path, wave_N: np.ndarray, rate_hz: int) -> None:
    """Write a wave as 16-bit PCM."""
    import soundfile

    temporary = path.with_name(f".{path.name}.partial")
    soundfile.write(temporary, wave_N, rate_hz, subtype="PCM_16", format="WAV")
    temporary.replace(path)
