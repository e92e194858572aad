"""The weights of a codec: kept in a folder and read when they are needed, or held in memory.

A codec has up to three parts: ``encoder`` (the speech network), ``codec`` (the centroids) and ``vocoder``.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

import torch

from slm_plugin.errors import CodecError
from slm_plugin.weights.permissions import share

ENCODER, CENTROIDS, VOCODER = "encoder", "codec", "vocoder"
Tensors = Mapping[str, torch.Tensor]


class Parts(Protocol):
    """Where the weights of a codec come from."""

    digests: Mapping[str, str]
    """Hex digest of each part that there is, by name."""

    def read(self, part: str) -> Tensors:
        """Return the tensors of a part by name, each of the shape that it was saved with.

        Raises:
            CodecError: They are missing, damaged, or not those of the digest.
        """
        ...

    def write(self, part: str, folder: Path) -> None:
        """Write ``<part>.safetensors`` into a folder."""
        ...


class PartsInMemory:
    """Weights that were just made.

    Args:
        tensors: Tensors of each part, by name of the part.
    """

    def __init__(self, tensors: Mapping[str, Tensors]) -> None:
        self._tensors = tensors
        self.digests: Mapping[str, str] = {part: digest(held) for part, held in tensors.items()}

    def read(self, part: str) -> Tensors:
        """Return the tensors of a part by name, each of its own shape."""
        return self._tensors[part]

    def write(self, part: str, folder: Path) -> None:
        """Write ``<part>.safetensors`` into a folder."""
        from safetensors.torch import save_file

        path = folder / f"{part}.safetensors"
        save_file({name: tensor.contiguous() for name, tensor in self._tensors[part].items()}, path)
        share(path)


class PartsInFolder:
    """Weights of a codec folder.

    Args:
        folder: The folder.
        digests: What its ``config.json`` says of each part.
    """

    def __init__(self, folder: Path, digests: Mapping[str, str]) -> None:
        self.folder = folder
        self.digests = digests

    def read(self, part: str) -> Tensors:
        """Return the tensors of a part by name, each of the shape that it was saved with, checked against its digest.

        Raises:
            CodecError: The file is missing, damaged or another one.
        """
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        path = self.folder / f"{part}.safetensors"
        try:
            tensors: Tensors = load_file(path)
        except (OSError, SafetensorError) as error:
            raise CodecError(f"{path} cannot be read ({error}); convert, fit or copy the codec again.") from None
        found = digest(tensors)
        if found != self.digests[part]:
            raise CodecError(
                f"{path}: the content has digest {found[:12]}, config.json says {self.digests[part][:12]};"
                " the folder was changed after it was written: convert, fit or copy it again."
            )
        return tensors

    def write(self, part: str, folder: Path) -> None:
        """Copy ``<part>.safetensors`` into a folder."""
        shutil.copyfile(self.folder / f"{part}.safetensors", folder / f"{part}.safetensors")


def digest(tensors: Tensors) -> str:
    """Return the SHA-256 of names, types, shapes and values of tensors of any shape, in the order of their names."""
    running = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        running.update(f"{name} {tensor.dtype} {tuple(tensor.shape)};".encode())
        running.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return running.hexdigest()
