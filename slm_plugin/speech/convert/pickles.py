"""Checkpoints that torch or scikit-learn wrote, read without running what is in them."""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from slm_plugin.errors import CodecError

TRUST = "--trust-pickle"
"""Option that allows files to run code while they are read."""

_PICKLE = b"\x80"
"""First byte of a pickle since protocol 2."""


def load_checkpoint(path: Path, trusted: bool) -> Mapping[str, Any]:
    """Return the content of a ``.pt``, ``.pth`` or ``.bin`` file, tensors mapped from the disk where it can be.

    Args:
        path: The file.
        trusted: Whether the file may hold objects other than tensors, whose code then runs.

    Raises:
        CodecError: It is missing, damaged, not a mapping, or holds such objects and is not trusted.
    """
    if not path.is_file():
        raise CodecError(f"{path} does not exist.")
    zipped = zipfile.is_zipfile(path)
    with path.open("rb") as file:
        if not zipped and file.read(1) != _PICKLE:
            raise CodecError(f"{path} is damaged or no checkpoint of torch.")
    try:
        # files of torch before 1.6 are plain pickles, which cannot be mapped
        content = torch.load(path, map_location="cpu", weights_only=not trusted, mmap=zipped)
    except pickle.UnpicklingError:
        if trusted:
            raise CodecError(f"{path} is damaged.") from None
        raise CodecError(
            f"{path} holds more than tensors, and reading it could run code of whoever made it;"
            f" add {TRUST} if you trust its source."
        ) from None
    except (OSError, RuntimeError, EOFError, ValueError, ImportError, AttributeError) as error:
        raise CodecError(f"{path} is damaged or cannot be read here: {_first_line(error)}.") from None
    if not isinstance(content, Mapping):
        raise CodecError(f"{path} holds a {type(content).__name__}, not named tensors.")
    return content


def tensors_of(content: Mapping[str, Any], keys: tuple[str, ...], path: Path) -> dict[str, torch.Tensor]:
    """Return the named tensors of a checkpoint: those under the first of ``keys`` that it has, else its own.

    Each has the shape and type that it was saved with.

    Raises:
        CodecError: There are none.
    """
    held = next((content[key] for key in keys if isinstance(content.get(key), Mapping)), content)
    found = {str(name): tensor for name, tensor in held.items() if isinstance(tensor, torch.Tensor)}
    if not found:
        raise CodecError(f"{path} holds no named tensors; looked under {', '.join(keys)} and at the top.")
    return found


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".") if lines else type(error).__name__
