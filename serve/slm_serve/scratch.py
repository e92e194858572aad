"""The server's temporary folder: locked while it runs, and removed by the next server if this one was killed."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from slm_plugin.errors import SlmError

PREFIX = "slm-serve-"
LOG = "vllm.log"
"""The engine's log, which a failed start leaves behind: its message names it."""

_LOCK = "lock"
_LOG_KEPT_S = 24 * 3600.0


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """Make a folder that only its owner can read, and remove it at the end.

    The folders of servers that were killed are removed first; a lock tells them from those of servers that run.

    Yields:
        The folder.
    """
    remove_abandoned(Path(tempfile.gettempdir()))
    folder = Path(tempfile.mkdtemp(prefix=PREFIX))
    new = folder / f".{_LOCK}"
    try:
        with new.open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            # under its name only once it is locked
            new.rename(folder / _LOCK)
            yield folder
    except SlmError:
        _empty(folder, keep=(LOG, _LOCK))
        if not (folder / LOG).exists():
            shutil.rmtree(folder, ignore_errors=True)
        raise
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    shutil.rmtree(folder, ignore_errors=True)


def remove_abandoned(parent: Path) -> None:
    """Remove the folders of this user whose server no longer runs; a log of a failed start stays for a day."""
    for folder in parent.glob(f"{PREFIX}*"):
        with suppress(OSError):
            stat = folder.lstat()
            if not folder.is_dir() or folder.is_symlink() or stat.st_uid != os.getuid():
                continue
            with (folder / _LOCK).open() as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                names = {path.name for path in folder.iterdir()}
                if names == {LOG, _LOCK} and time.time() - (folder / LOG).stat().st_mtime < _LOG_KEPT_S:
                    continue
                shutil.rmtree(folder, ignore_errors=True)


def _empty(folder: Path, keep: tuple[str, ...]) -> None:
    for path in folder.iterdir():
        if path.name in keep:
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
