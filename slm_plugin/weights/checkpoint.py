"""A model folder's weights, read one tensor at a time.

Nothing is kept: a file is opened for every tensor, so that its mapped pages leave memory with the tensor.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Protocol

import torch
from safetensors import SafetensorError, safe_open

from slm_plugin.errors import WeightsError, suggest

SINGLE_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"

DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
"""Names of the safetensors format -> types of torch."""


class WeightSource(Protocol):
    """Named tensors that can be read one at a time."""

    def names(self) -> list[str]:
        """Return the names of all tensors, sorted."""
        ...

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of a tensor without reading it."""
        ...

    def dtype(self, name: str) -> torch.dtype:
        """Return the type of a tensor's elements without reading it."""
        ...

    def tensor(self, name: str) -> torch.Tensor:
        """Read a tensor, of the shape and type that ``shape`` and ``dtype`` say."""
        ...


class Checkpoint:
    """The weights of a model folder in safetensors form, one file or shards with an index.

    Args:
        folder: A folder that ``save_pretrained`` wrote.

    Raises:
        WeightsError: The folder or its weights are not there, a shard is missing or damaged, or the
            index names a tensor that its shard does not hold.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._files = _files_by_tensor(folder)
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._dtypes: dict[str, torch.dtype] = {}
        for path in sorted(set(self._files.values())):
            self._read_header(path)

    def _read_header(self, path: Path) -> None:
        wanted = [name for name, file in self._files.items() if file == path]
        try:
            with safe_open(path, "pt") as file:
                held = set(file.keys())
                for name in wanted:
                    if name not in held:
                        raise WeightsError(f"{path} does not hold the tensor {name!r} that the index says it holds.")
                    part = file.get_slice(name)
                    if part.get_dtype() not in DTYPES:
                        raise WeightsError(f"{path}: the tensor {name!r} has the type {part.get_dtype()}, not read.")
                    self._shapes[name] = tuple(part.get_shape())
                    self._dtypes[name] = DTYPES[part.get_dtype()]
        except (SafetensorError, OSError) as error:
            raise WeightsError(f"{path} is damaged or cannot be read: {error}.") from None

    def names(self) -> list[str]:
        """Return the names of all tensors, sorted."""
        return sorted(self._files)

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of a tensor without reading it."""
        self._find(name)
        return self._shapes[name]

    def dtype(self, name: str) -> torch.dtype:
        """Return the type of a tensor's elements without reading it."""
        self._find(name)
        return self._dtypes[name]

    def tensor(self, name: str) -> torch.Tensor:
        """Read a tensor, of the shape and type in its file.

        Raises:
            WeightsError: There is none of that name, or its file cannot be read.
        """
        path = self._find(name)
        try:
            with safe_open(path, "pt") as file:
                found: torch.Tensor = file.get_tensor(name)
        except (SafetensorError, OSError) as error:
            raise WeightsError(f"{path} is damaged or cannot be read: {error}.") from None
        return found

    def file(self, name: str) -> Path:
        """Return the file that a tensor is in.

        Raises:
            WeightsError: There is no tensor of that name.
        """
        return self._find(name)

    def _find(self, name: str) -> Path:
        if name not in self._files:
            raise WeightsError(f"{self.folder} has no tensor {name!r}. {suggest(name, self._files, 'Tensors')}")
        return self._files[name]


def count_not_finite(tensor: torch.Tensor) -> int:
    """Return how many values of a tensor of any shape are infinite or NaN."""
    # a sum over finite values may overflow, but one over others is never finite
    if not tensor.is_floating_point() or torch.isfinite(tensor.sum()):
        return 0
    return int((~torch.isfinite(tensor)).sum())


def require_whole(folder: Path) -> None:
    """Refuse a model folder whose index names files that are not there, or whose files are cut off.

    Folders without safetensors are left to whoever loads them.

    Raises:
        WeightsError: Names what is missing or damaged.
    """
    if not (folder / INDEX_FILE).is_file() and not (folder / SINGLE_FILE).is_file():
        return
    for path in sorted(set(_files_by_tensor(folder).values())):
        try:
            with safe_open(path, "pt"):
                continue
        except (SafetensorError, OSError) as error:
            raise WeightsError(f"{path} is damaged or cannot be read: {error}.") from None


def _files_by_tensor(folder: Path) -> dict[str, Path]:
    if not folder.is_dir():
        raise WeightsError(f"{folder} is not a folder; a model folder as save_pretrained writes it is needed.")
    index = folder / INDEX_FILE
    if index.is_file():
        try:
            mapping = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        except (json.JSONDecodeError, KeyError) as error:
            raise WeightsError(f"{index} is damaged: {error}.") from None
        missing = sorted({file for file in mapping.values() if not (folder / file).is_file()})
        if missing:
            raise WeightsError(f"{folder} lacks {len(missing)} shard(s) of its index: {', '.join(missing)}.")
        return {name: folder / file for name, file in mapping.items()}
    single = folder / SINGLE_FILE
    if not single.is_file():
        raise WeightsError(f"{folder} holds neither {SINGLE_FILE} nor {INDEX_FILE}; save the model as safetensors.")
    try:
        with safe_open(single, "pt") as file:
            return dict.fromkeys(file.keys(), single)
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{single} is damaged or cannot be read: {error}.") from None
