"""Permissions of what is written under a temporary name: those that the user's umask gives to any new file.

``tempfile`` and safetensors make files that only their owner may read, and moving them into place keeps that.
"""

from __future__ import annotations

import os
import secrets
import stat
from pathlib import Path


def umask() -> int:
    """Return the umask of this process."""
    try:
        # asking the system means setting it, which other threads would notice
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
        return int(next(line for line in lines if line.startswith("Umask:")).split()[1], 8)
    except (OSError, StopIteration, ValueError):
        found = os.umask(0o077)
        os.umask(found)
        return found


def make_folder_beside(destination: Path, infix: str) -> Path:
    """Make a hidden folder ``.NAME<infix>RANDOM`` beside a destination, on the same disk.

    Raises:
        OSError: It cannot be made.
    """
    while True:
        folder = destination.parent / f".{destination.name}{infix}{secrets.token_hex(4)}"
        try:
            folder.mkdir()
        except FileExistsError:
            continue
        return folder


def share(path: Path) -> None:
    """Give a file, or every file and folder below a folder, the permissions of new ones; none loses any.

    Raises:
        OSError: They cannot be changed.
    """
    allowed = ~umask()
    for found in [path, *(path.rglob("*") if path.is_dir() else ())]:
        status = found.lstat()
        # a link, soft or hard, is a file that somebody else owns
        if found.is_symlink() or (found.is_file() and status.st_nlink > 1):
            continue
        mode = stat.S_IMODE(status.st_mode)
        wanted = mode | ((0o777 if found.is_dir() else 0o666) & allowed)
        if wanted != mode:
            found.chmod(wanted)
