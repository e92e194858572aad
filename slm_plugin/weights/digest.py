"""Digests of files by their content: of all of it up to 64 MiB, of samples of larger files.

A larger safetensors file is sampled tensor by tensor, so that a change in one of them is noticed: 16 blocks of 4 KiB
spread over each, 64 over matrices with a row per token, and the last 8 MiB of those, where new tokens such as speech
units are. A change that covers a fifteenth of a tensor, or a 63rd of such a matrix, is always noticed; a smaller one
may not be.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

FULL_BYTES = 64 << 20
"""Largest file that is read in full, in bytes."""

LAST_BYTES = 8 << 20
"""Bytes at the end of a matrix with a row per token that are read in full."""

_BLOCK_BYTES = 4096
_CHUNK_BYTES = 1 << 20
_FEW, _MANY, _PLAIN = 16, 64, 4096
_LENGTH_BYTES = 8


def file_digest(path: Path) -> str:
    """Return 32 hex digits over a file's size and content.

    Raises:
        OSError: The file cannot be read.
    """
    size = path.stat().st_size
    digest = hashlib.blake2b(str(size).encode(), digest_size=16)
    with path.open("rb") as file:
        if size <= FULL_BYTES:
            digest = hashlib.blake2b(digest_size=16)
            while chunk := file.read(_CHUNK_BYTES):
                digest.update(chunk)
            return digest.hexdigest()
        for start, length in _samples(path, size):
            file.seek(start)
            digest.update(file.read(length))
    return digest.hexdigest()


def _samples(path: Path, size: int) -> Iterator[tuple[int, int]]:
    """Yield the places of a large file that are read, as offset and length in bytes."""
    header = _header(path)
    if header is None:
        yield from _spread(0, size, _PLAIN)
        return
    content, begin = header
    yield 0, begin
    tensors = [entry for name, entry in content.items() if name != "__metadata__"]
    rows = max((entry["shape"][0] for entry in tensors if len(entry["shape"]) == 2), default=0)
    for entry in tensors:
        first, last = (begin + offset for offset in entry["data_offsets"])
        per_token = len(entry["shape"]) == 2 and entry["shape"][0] == rows
        yield from _spread(first, last, _MANY if per_token else _FEW)
        if per_token:
            yield max(first, last - LAST_BYTES), min(LAST_BYTES, last - first)


def _spread(first: int, last: int, n: int) -> Iterator[tuple[int, int]]:
    """Yield blocks that are spread evenly over a stretch, its two ends included."""
    room = last - first - _BLOCK_BYTES
    if room <= 0:
        yield first, last - first
        return
    for number in range(n):
        yield first + room * number // (n - 1), _BLOCK_BYTES


def _header(path: Path) -> tuple[dict[str, Any], int] | None:
    """Return a safetensors header and where the data begins; None for other files."""
    if path.suffix != ".safetensors":
        return None
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(_LENGTH_BYTES), "little")
            return dict(json.loads(file.read(length))), _LENGTH_BYTES + length
    except (ValueError, MemoryError, OverflowError):
        return None
