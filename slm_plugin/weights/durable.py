"""Files and folders that are on the disk when they are said to be, and that are replaced as a whole."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_AT_FDCWD, _RENAME_EXCHANGE = -100, 2
_NOT_EXCHANGED = (errno.EINVAL, errno.ENOSYS, errno.EXDEV, errno.EBUSY, errno.EPERM, errno.ENOTSUP)


def write_text(path: Path, text: str) -> None:
    """Write a text file under a temporary name, and move it into place when it is on the disk.

    Raises:
        OSError: It cannot be written; an earlier file stays.
    """
    # several machines may share the folder, so a process number alone is not unique
    temporary = path.with_name(f".{path.name}.{os.uname().nodename}.{os.getpid()}")
    try:
        temporary.write_text(text, encoding="utf-8")
        settle(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def settle(temporary: Path, path: Path) -> None:
    """Move a finished file into place when it is on the disk, so that a crash leaves the old one or the new one.

    Raises:
        OSError: It cannot be moved.
    """
    flush(temporary)
    temporary.replace(path)
    flush(path.parent)


def flush(path: Path) -> None:
    """Wait until a file or folder is on the disk; a folder that cannot be waited for is passed over."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # some network disks refuse it for folders
        if not path.is_dir() or error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)


def flush_tree(folder: Path) -> None:
    """Wait until everything in a folder is on the disk."""
    for path in folder.rglob("*"):
        if not path.is_symlink():
            flush(path)
    flush(folder)


def exchange(one: Path, other: Path) -> bool:
    """Exchange two folders in one step; tell whether the disk can do that.

    Source: ``renameat2(2)`` with ``RENAME_EXCHANGE``.

    Raises:
        OSError: They cannot be exchanged for another reason.
    """
    if sys.platform != "linux":
        return False
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if rename is None:
        return False
    if rename(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE) == 0:
        return True
    number = ctypes.get_errno()
    if number in _NOT_EXCHANGED:
        return False
    raise OSError(number, os.strerror(number), str(other))


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a folder in which several processes change a file while the block runs; others wait.

    Raises:
        OSError: There is no such folder.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        # a network disk without locks is no worse than before
        with suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def hold(folder: Path) -> int | None:
    """Hold a folder as long as this process lives; None if another one holds it, or if it cannot be held."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return None
    return descriptor


def link_tree(source: Path, target: Path, skip: frozenset[str] = frozenset()) -> None:
    """Link every file of a folder into another that lacks it; files and folders of both are in the second then.

    Args:
        source: A folder.
        target: A folder on the same disk.
        skip: Names at the top of the first that are left out.

    Raises:
        OSError: The disk has no hard links.
    """
    for path in source.iterdir():
        there = target / path.name
        if path.name in skip:
            continue
        if path.is_dir() and not path.is_symlink():
            if not os.path.lexists(there):
                there.mkdir()
                shutil.copystat(path, there)
            if there.is_dir():
                link_tree(path, there)
        elif not os.path.lexists(there):
            with suppress(FileNotFoundError):
                os.link(path, there, follow_symlinks=False)
