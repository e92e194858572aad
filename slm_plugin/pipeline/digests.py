"""Digests of files and folders, remembered while a file has the same size, time of change and place on the disk."""

from __future__ import annotations

import hashlib
import os
import threading
import time
from pathlib import Path

from slm_plugin.errors import PipelineError
from slm_plugin.pipeline import records
from slm_plugin.pipeline.attempts import ASIDE
from slm_plugin.weights.digest import file_digest

FILE_NAME = "digests.json"
RECENT_SECONDS = 2.0
"""A file that changed so shortly ago may change again without another time of change, so it is not remembered."""


class Digests:
    """Digests of files, twelve hex digits each.

    Args:
        output: Output folder of the pipeline, where they are remembered; None remembers nothing on the disk.
    """

    def __init__(self, output: Path | None = None) -> None:
        self._file = output / records.FOLDER / FILE_NAME if output is not None else None
        content = records.read_json(self._file) if self._file is not None else None
        self._known: dict[str, object] = dict(content or {})
        self._is_new = False
        self._lock = threading.Lock()

    def file(self, path: Path) -> str:
        """Return the digest of a file.

        Raises:
            PipelineError: It cannot be read.
        """
        try:
            status = path.stat()
            key, state = os.path.abspath(path), [status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino]
            with self._lock:
                known = self._known.get(key)
            if isinstance(known, list) and known[:-1] == state:
                return str(known[-1])
            digest = file_digest(path)[:12]
        except OSError as error:
            raise PipelineError(f"{path} cannot be read ({error.strerror}).") from None
        if time.time() - max(status.st_mtime, status.st_ctime) > RECENT_SECONDS:
            with self._lock:
                self._known[key] = [*state, digest]
                self._is_new = True
        return digest

    def any(self, path: Path) -> str:
        """Return the digest of a file, or of a folder with the names in it.

        Raises:
            PipelineError: Something cannot be read.
        """
        if not path.is_dir():
            return self.file(path)
        digest = hashlib.blake2b(digest_size=16)
        for file in files_in(path):
            digest.update(f"{file.relative_to(path)}:{self.file(file)}\n".encode())
        return digest.hexdigest()[:12]

    def save(self) -> None:
        """Remember what was digested since."""
        with self._lock:
            if self._file is not None and self._is_new and self._file.parent.is_dir():
                records.write_json(self._file, self._known)
            self._is_new = False


def files_in(path: Path) -> list[Path]:
    """Return the files in a folder, but for bytecode beside scripts and outputs that were moved aside."""
    if not path.is_dir():
        return [path]
    return sorted(file for file in path.rglob("*") if file.is_file() and not _is_left_over(file.relative_to(path)))


def _is_left_over(file: Path) -> bool:
    return any(part == "__pycache__" or ASIDE.fullmatch(part) for part in file.parts)
