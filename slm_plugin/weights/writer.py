"""Weights written one tensor at a time, in the safetensors format and with the file names of transformers.

A safetensors file is eight bytes with the length of a header (little-endian), the header as JSON with type,
shape and place of each tensor, then the tensors' bytes. Shapes and types are known beforehand, so headers are
written first and no more than one tensor is ever in memory.

Source: the format of https://github.com/huggingface/safetensors, section "Format".
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

import torch

from slm_plugin.errors import WeightsError
from slm_plugin.weights.checkpoint import DTYPES, INDEX_FILE, SINGLE_FILE
from slm_plugin.weights.staging import discard, intended, make_partial, not_written, publish

_NAMES = {dtype: name for name, dtype in DTYPES.items()}


@dataclass(frozen=True)
class PlannedTensor:
    """A tensor that will be written.

    Attributes:
        name: Its name in the model.
        shape: Its shape.
        dtype: Type of its elements.
    """

    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype

    @property
    def n_bytes(self) -> int:
        """Size on disk."""
        return math.prod(self.shape) * self.dtype.itemsize


class CheckpointWriter:
    """Writes a model's weights tensor by tensor; they appear in ``folder`` all at once, or not at all.

    Used as a context it finishes at the end of the block, and removes what it wrote on an error.

    Args:
        folder: Where the weights go; files of other kinds in it are left alone.
        tensors: Everything that will be written, in the order in which shards are filled.
        max_shard_bytes: Size at which the next shard begins, unless a single tensor is larger; None writes one file.

    Raises:
        WeightsError: The disk has no room for all of it, or the folder cannot be written.
    """

    def __init__(self, folder: Path, tensors: Sequence[PlannedTensor], max_shard_bytes: int | None = None) -> None:
        self.folder = folder
        self._planned = {tensor.name: tensor for tensor in tensors}
        assert len(self._planned) == len(tensors), "a tensor is planned twice"
        self._shards = _fill_shards(tensors, max_shard_bytes)
        self._places: dict[str, tuple[str, int]] = {}
        self._missing = set(self._planned)
        self._open: tuple[str, BinaryIO] | None = None
        self._partial = make_partial(folder)
        try:
            self._require_room()
            for file_name, shard in self._shards.items():
                self._write_header(file_name, shard)
        except BaseException as error:
            self.abort()
            if isinstance(error, OSError):
                raise not_written(folder, error) from None
            raise

    @property
    def n_bytes(self) -> int:
        """Size of all tensors."""
        return sum(tensor.n_bytes for tensor in self._planned.values())

    @property
    def n_shards(self) -> int:
        """How many files the weights are spread over."""
        return len(self._shards)

    def write(self, name: str, tensor: torch.Tensor) -> None:
        """Write a tensor, of the shape and type that were planned; tensors may come in any order.

        Raises:
            WeightsError: The disk is full, or a file cannot be written; what was written is removed.
        """
        planned = self._planned[name]
        assert tuple(tensor.shape) == planned.shape, f"{name}: {tuple(tensor.shape)} is not {planned.shape}"
        assert tensor.dtype == planned.dtype, f"{name}: {tensor.dtype} is not {planned.dtype}"
        file_name, offset = self._places[name]
        try:
            file = self._file(file_name)
            file.seek(offset)
            _write_all(file, tensor)
        except OSError as error:
            self.abort()
            raise not_written(self.folder, error) from None
        self._missing.discard(name)

    def finish(self) -> None:
        """Write the index where there are several shards, and move everything into place.

        Raises:
            WeightsError: The disk is full, or a file cannot be written; what was written is removed.
        """
        assert not self._missing, f"{len(self._missing)} tensors were never written"
        try:
            self._close()
            if len(self._shards) > 1:
                total = {"total_parameters": sum(math.prod(t.shape) for t in self._planned.values())}
                places = {name: place[0] for name, place in sorted(self._places.items())}
                content = {"metadata": {**total, "total_size": self.n_bytes}, "weight_map": places}
                (self._partial / INDEX_FILE).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
            publish(self._partial, self.folder)
        except OSError as error:
            raise not_written(self.folder, error) from None
        finally:
            self.abort()

    def abort(self) -> None:
        """Remove what was written and not yet moved into place."""
        try:
            self._close()
        except OSError:  # a full disk is met again when the last bytes are flushed
            self._open = None
        discard(self._partial)

    def __enter__(self) -> CheckpointWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.finish()
        else:
            self.abort()

    def _require_room(self) -> None:
        free = shutil.disk_usage(self._partial).free
        if self.n_bytes > free:
            raise WeightsError(
                f"{intended(self.folder)} was not written: the weights need {_size(self.n_bytes)},"
                f" the disk has {_size(free)} free."
            )

    def _write_header(self, file_name: str, shard: Sequence[PlannedTensor]) -> None:
        content: dict[str, object] = {"__metadata__": {"format": "pt"}}
        offsets, position = {}, 0
        # wide types first, so that every tensor begins at a multiple of its element's size
        for tensor in sorted(shard, key=lambda item: -item.dtype.itemsize):
            end = position + tensor.n_bytes
            content[tensor.name] = {
                "dtype": _NAMES[tensor.dtype],
                "shape": list(tensor.shape),
                "data_offsets": [position, end],
            }
            offsets[tensor.name] = position
            position = end
        header = json.dumps(content, separators=(",", ":"), ensure_ascii=False).encode()
        header += b" " * (-len(header) % 8)
        with (self._partial / file_name).open("wb") as file:
            file.write(len(header).to_bytes(8, "little"))
            file.write(header)
        for name, offset in offsets.items():
            self._places[name] = (file_name, 8 + len(header) + offset)

    def _file(self, file_name: str) -> BinaryIO:
        if self._open is None or self._open[0] != file_name:
            self._close()
            # unbuffered: a tensor goes to the file as it is, and a full disk is met here
            self._open = (file_name, (self._partial / file_name).open("r+b", buffering=0))
        return self._open[1]

    def _close(self) -> None:
        if self._open is not None:
            self._open[1].close()
            self._open = None


def _size(n_bytes: int) -> str:
    return f"{n_bytes / 1e9:.2f} GB" if n_bytes >= 10**7 else f"{n_bytes / 1e3:.1f} kB"


def _write_all(file: BinaryIO, tensor: torch.Tensor) -> None:
    view: memoryview = tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().data
    while len(view):
        # one call moves at most 2 GiB
        view = view[file.write(view) :]


def _fill_shards(tensors: Iterable[PlannedTensor], max_shard_bytes: int | None) -> dict[str, list[PlannedTensor]]:
    shards: list[list[PlannedTensor]] = [[]]
    used = 0
    for tensor in tensors:
        if shards[-1] and max_shard_bytes is not None and used + tensor.n_bytes > max_shard_bytes:
            shards.append([])
            used = 0
        shards[-1].append(tensor)
        used += tensor.n_bytes
    if len(shards) == 1:
        return {SINGLE_FILE: shards[0]}
    n = len(shards)
    return {f"model-{number:05d}-of-{n:05d}.safetensors": shard for number, shard in enumerate(shards, start=1)}
