"""Folders that are written beside their place and moved there file by file when all of it is there."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from slm_plugin.errors import WeightsError

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
    except OSError as error:
        raise not_written(destination, error) from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def make_partial(destination: Path) -> Path:
    """Make a hidden folder beside a destination, on the same disk.

    Raises:
        WeightsError: The destination is a file, or the folder cannot be made.
    """
    try:
        if destination.exists() and not destination.is_dir():
            raise WeightsError(f"{destination} is a file; give a folder to write the model to.")
        destination.parent.mkdir(parents=True, exist_ok=True)
        return Path(tempfile.mkdtemp(prefix=f".{destination.name}.partial-", dir=destination.parent))
    except OSError as error:
        raise not_written(destination, error) from None


def publish(partial: Path, destination: Path) -> None:
    """Move the files of a finished folder into place, and remove weights of an earlier model that none replaced."""
    moved = {path.name for path in partial.iterdir()}
    destination.mkdir(exist_ok=True)
    for path in sorted(partial.iterdir()):
        path.replace(destination / path.name)
    stale = {path for pattern in _WEIGHT_FILES for path in destination.glob(pattern) if path.name not in moved}
    if any(name.endswith(".safetensors") for name in moved):
        for path in stale:
            path.unlink()


def not_written(destination: Path, error: OSError) -> WeightsError:
    """Return the error that says in one line why nothing was written."""
    return WeightsError(f"{destination} was not written: {error.strerror or error}. Nothing was changed.")
