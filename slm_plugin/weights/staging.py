"""Folders that are written beside their place and moved there file by file when all of it is there."""

from __future__ import annotations

import errno
import glob
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from slm_plugin.errors import SlmError, WeightsError
from slm_plugin.weights.durable import exchange, flush, flush_tree, hold, link_tree
from slm_plugin.weights.permissions import make_folder_beside, share

_PARTIAL = re.compile(r"\.(.+)\.partial-[^.]+")
_RUST_ERROR = re.compile(r"\(os error (\d+)\)")
_NOT_WRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)
_WEIGHT_FILES = ("model*.safetensors", "model*.safetensors.index.json", "pytorch_model*.bin*")
_INDEX_FILES = "*.index.json"
_held: dict[Path, int | None] = {}
"""Hidden folders of this process, with what holds them; nothing else removes them."""


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
        discard(partial)


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
    """Make a hidden folder beside a destination, on the same disk, and remove those that killed processes left.

    Raises:
        WeightsError: The destination is a file, or the folder cannot be made.
    """
    real = Path(os.path.realpath(destination))
    try:
        if real.exists() and not real.is_dir():
            raise WeightsError(f"{destination} is a file; give a folder to write the model to.")
        real.parent.mkdir(parents=True, exist_ok=True)
        for left in real.parent.glob(f".{glob.escape(real.name)}.partial-*"):
            descriptor = hold(left)
            if descriptor is not None:
                shutil.rmtree(left, ignore_errors=True)
                os.close(descriptor)
        partial = make_folder_beside(real, ".partial-")
    except OSError as error:
        raise not_written(destination, error) from None
    _held[partial] = hold(partial)
    return partial


def discard(partial: Path) -> None:
    """Remove a hidden folder with what is in it, if it is there."""
    shutil.rmtree(partial, ignore_errors=True)
    descriptor = _held.pop(partial, None)
    if descriptor is not None:
        os.close(descriptor)


def publish(partial: Path, destination: Path) -> None:
    """Let a finished folder take the place of a destination, in one step.

    Files of other kinds that the destination has stay in it; weights of an earlier model that none replaced are
    removed. A process that is killed at any moment, or a machine that crashes, leaves the old folder or the new one.

    Raises:
        OSError: The disk is full, or a file cannot be moved.
    """
    real = Path(os.path.realpath(destination))
    # safetensors makes files that only their owner may read
    share(partial)
    flush_tree(partial)
    if not _appeared(partial, real) and not _exchanged(partial, real):
        _move_one_by_one(partial, real)
    flush(real.parent)
    discard(partial)


def _appeared(partial: Path, real: Path) -> bool:
    """Move a finished folder to a place where nothing is; tell whether nothing was."""
    try:
        if real.exists():
            return False
        partial.rename(real)
    except OSError as error:
        # another process of the same training made the folder in the meantime
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
            return False
        raise
    return True


def _exchanged(partial: Path, real: Path) -> bool:
    """Exchange a finished folder with the one in its place; tell whether the disk can do that."""
    stale = frozenset(path.name for path in _stale(partial, real))
    try:
        link_tree(real, partial, stale)
        partial.chmod(real.stat().st_mode & 0o7777)
        if not exchange(partial, real):
            return False
    except OSError as error:
        if error.errno in _NOT_WRITABLE:
            raise
        return False
    with suppress(OSError):
        # what others wrote into the old folder in the meantime
        link_tree(partial, real, stale)
    return True


def _stale(partial: Path, real: Path) -> list[Path]:
    """Return the weights of an earlier model that a new one does not replace."""
    new = {path.name for path in partial.iterdir()}
    if not any(name.endswith(".safetensors") for name in new):
        return []
    return [path for pattern in _WEIGHT_FILES for path in real.glob(pattern) if path.name not in new]


def _move_one_by_one(source: Path, destination: Path) -> None:
    """Move files one by one: without an index in between, old and new shards are no valid model."""
    stale = _stale(source, destination)
    for path in destination.glob(_INDEX_FILES):
        path.unlink()
    _move(source, destination)
    for path in stale:
        path.unlink(missing_ok=True)


def _move(source: Path, destination: Path) -> None:
    destination.mkdir(exist_ok=True)
    for path in sorted(source.iterdir(), key=lambda path: (path.match(_INDEX_FILES), path.name)):
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
