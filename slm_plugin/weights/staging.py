"""Folders that are written beside their place and moved there file by file when all of it is there."""

from __future__ import annotations

import errno
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from slm_plugin.errors import SlmError, WeightsError
from slm_plugin.weights.permissions import make_folder_beside, share

_PARTIAL = re.compile(r"\.(.+)\.partial-[^.]+")
_RUST_ERROR = re.compile(r"\(os error (\d+)\)")
_NOT_WRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)
_WEIGHT_FILES = ("model*.safetensors", "model*.safetensors.index.json", "pytorch_model*.bin*")


@contextmanager
def staged(destination: Path) -> Iterator[Path]:
    """Yield an empty folder whose files replace those of ``destination`` when the block ends without an error.

    On an error the folder is removed and ``destination`` is as it was.

    Raises:
        WeightsError: The disk is full, or a file cannot be written.
    """
    partial = make_partial(destination)
    try:
        yield partial
        publish(partial, destination)
    except SlmError:
        raise
    except Exception as error:
        failed = error if isinstance(error, OSError) else writing_error(error)
        if failed is None:
            raise
        raise not_written(destination, failed) from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)


@contextmanager
def whole(folder: Path) -> Iterator[None]:
    """Remove a folder that several steps write, where one of them fails: half a checkpoint would be resumed from.

    Raises:
        WeightsError: The disk is full, or a file cannot be written.
    """
    try:
        yield
    except BaseException as error:
        shutil.rmtree(folder, ignore_errors=True)
        failed = None if isinstance(error, SlmError) else writing_error(error)
        if failed is None:
            raise
        raise not_written(folder, failed) from None


def make_partial(destination: Path) -> Path:
    """Make a hidden folder beside a destination, on the same disk.

    Raises:
        WeightsError: The destination is a file, or the folder cannot be made.
    """
    try:
        if destination.exists() and not destination.is_dir():
            raise WeightsError(f"{destination} is a file; give a folder to write the model to.")
        destination.parent.mkdir(parents=True, exist_ok=True)
        return make_folder_beside(destination, ".partial-")
    except OSError as error:
        raise not_written(destination, error) from None


def publish(partial: Path, destination: Path) -> None:
    """Move the files of a finished folder into place, and remove weights of an earlier model that none replaced."""
    moved = {path.name for path in partial.iterdir()}
    # safetensors makes files that only their owner may read
    share(partial)
    _move(partial, destination)
    stale = {path for pattern in _WEIGHT_FILES for path in destination.glob(pattern) if path.name not in moved}
    if any(name.endswith(".safetensors") for name in moved):
        for path in stale:
            path.unlink()


def _move(source: Path, destination: Path) -> None:
    destination.mkdir(exist_ok=True)
    for path in sorted(source.iterdir()):
        if path.is_dir() and (destination / path.name).is_dir():
            _move(path, destination / path.name)
        else:
            path.replace(destination / path.name)


def intended(path: Path) -> Path:
    """Return where a path inside of a hidden folder will be when all of it is written, as users know it."""
    parts = []
    for part in path.parts:
        while match := _PARTIAL.fullmatch(part):
            part = match[1]
        parts.append(part)
    return Path(*parts)


def writing_error(error: BaseException) -> OSError | None:
    """Return why a disk took no more, as the error of the system that it is; None for errors of other kinds.

    The libraries that write weights and tokenizers wrap it into errors of their own.
    """
    text = str(error)
    if (
        isinstance(error, RuntimeError)
        and "inline_container" in text
        and re.search("unexpected pos|write failed", text)
    ):
        return OSError(errno.ENOSPC, "the disk took no more")
    number = error.errno if isinstance(error, OSError) else None
    if number is None and (match := _RUST_ERROR.search(text)):
        number = int(match[1])
    return OSError(number, os.strerror(number)) if number in _NOT_WRITABLE else None


def not_written(destination: Path, error: OSError) -> WeightsError:
    """Return the error that says in one line why nothing was written."""
    return WeightsError(f"{intended(destination)} was not written: {error.strerror or error}. Nothing was changed.")
