"""Some tensors of a safetensors checkpoint, read without the rest of it: here or through fsspec."""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from typing import Any

import torch

from slm_plugin.errors import CodecError
from slm_plugin.weights.checkpoint import DTYPES, INDEX_FILE, SINGLE_FILE

GAP_BYTES = 1 << 20
"""Neighbours closer than this are fetched by one request: a request costs more than a megabyte."""


@dataclass(frozen=True)
class Fetched:
    """Tensors of a checkpoint.

    Attributes:
        tensors: By name without the prefix.
        n_bytes: Bytes of weight files that were read for them, headers included.
        n_requests: Reads of weight files.
    """

    tensors: dict[str, torch.Tensor]
    n_bytes: int
    n_requests: int


class RemoteFolder:
    """A folder here, or anywhere that fsspec reads: ``hf://owner/model``, ``s3://...``, ``https://...``.

    Args:
        location: Path or URL.

    Raises:
        CodecError: No file system for such a URL is installed.
    """

    def __init__(self, location: str) -> None:
        import fsspec

        self.location = location
        try:
            self._files, self._root = fsspec.core.url_to_fs(location)
        except (ImportError, ValueError) as error:
            raise CodecError(f"{location} cannot be opened: {error}.") from None

    def bytes(self, name: str, start: int | None = None, end: int | None = None) -> bytes:
        """Return a file of the folder, or its bytes from ``start`` on, to ``end`` without it.

        Raises:
            CodecError: It is not there or cannot be read.
        """
        try:
            found = self._files.cat_file(f"{self._root}/{name}", start=start, end=end)
        except (OSError, ValueError) as error:
            raise CodecError(f"{self.location}/{name} cannot be read: {error or type(error).__name__}.") from None
        return bytes(found)

    def has(self, name: str) -> bool:
        """Tell whether the folder has a file."""
        return bool(self._files.exists(f"{self._root}/{name}"))

    def json(self, name: str) -> dict[str, Any]:
        """Return a JSON file of the folder.

        Raises:
            CodecError: It is not there, or not a mapping in JSON.
        """
        try:
            content = json.loads(self.bytes(name))
        except ValueError as error:
            raise CodecError(f"{self.location}/{name} is not valid JSON: {error}.") from None
        if not isinstance(content, dict):
            raise CodecError(f"{self.location}/{name} must hold a mapping.")
        return content


def fetch_tensors(folder: RemoteFolder, prefix: str) -> Fetched:
    """Read the tensors whose names begin with a prefix, and of the weight files only their bytes.

    Raises:
        CodecError: There are none, a file is missing, damaged or shorter than its header says.
    """
    files = [SINGLE_FILE]
    if folder.has(INDEX_FILE):
        index = folder.json(INDEX_FILE).get("weight_map", {})
        files = sorted({file for name, file in index.items() if name.startswith(prefix)})
    tensors: dict[str, torch.Tensor] = {}
    n_bytes = n_requests = 0
    for file in files:
        (header_length,) = struct.unpack("<Q", _exact(folder, file, 0, 8))
        if header_length > 100_000_000:
            raise CodecError(f"{folder.location}/{file} is not a safetensors file.")
        begin = 8 + header_length
        header = _header(_exact(folder, file, 8, begin), f"{folder.location}/{file}")
        n_bytes, n_requests = n_bytes + begin, n_requests + 2
        wanted = sorted((entry["data_offsets"], name) for name, entry in header.items() if name.startswith(prefix))
        for first, end, members in _runs(wanted):
            block = _exact(folder, file, begin + first, begin + end)
            n_bytes, n_requests = n_bytes + len(block), n_requests + 1
            for (low, high), name in members:
                tensors[name.removeprefix(prefix)] = _tensor(block[low - first : high - first], header[name], name)
    if not tensors:
        raise CodecError(f"{folder.location} holds no tensor whose name begins with {prefix!r}.")
    return Fetched(tensors, n_bytes, n_requests)


def _runs(wanted: list[tuple[list[int], str]]) -> list[tuple[int, int, list[tuple[list[int], str]]]]:
    """Group neighbouring byte ranges: ``(first, end, members)``."""
    runs: list[tuple[int, int, list[tuple[list[int], str]]]] = []
    for offsets, name in wanted:
        if runs and offsets[0] - runs[-1][1] <= GAP_BYTES:
            first, end, members = runs[-1]
            runs[-1] = (first, max(end, offsets[1]), [*members, (offsets, name)])
        else:
            runs.append((offsets[0], offsets[1], [(offsets, name)]))
    return runs


def _exact(folder: RemoteFolder, file: str, start: int, end: int) -> bytes:
    block = folder.bytes(file, start, end)
    if len(block) != end - start:
        raise CodecError(f"{folder.location}/{file} ends too early: it is damaged or still being downloaded.")
    return block


def _header(raw: bytes, where: str) -> dict[str, Any]:
    try:
        header = json.loads(raw)
    except ValueError as error:
        raise CodecError(f"{where} is not a safetensors file: {error}.") from None
    header.pop("__metadata__", None)
    return dict(header)


def _tensor(raw: bytes, entry: dict[str, Any], name: str) -> torch.Tensor:
    if entry["dtype"] not in DTYPES:
        raise CodecError(f"the tensor {name!r} has the type {entry['dtype']}, not read.")
    # a copy, because the bytes of a request cannot be written to
    return torch.frombuffer(bytearray(raw), dtype=DTYPES[entry["dtype"]]).reshape(entry["shape"])
