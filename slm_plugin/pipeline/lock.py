"""One run at a time in an output folder, the children of a killed run included."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from slm_plugin.errors import PipelineError
from slm_plugin.pipeline import records

MARK = "SLM_PLUGIN_RUN"
"""Environment variable of every process of a run: the output folder."""

WAIT_SECONDS = 60.0
POLL_SECONDS = 0.2


@contextmanager
def locked(output: Path, tell: Callable[[str], None], wait_seconds: float = WAIT_SECONDS) -> Iterator[int]:
    """Hold an output folder while the block runs.

    The lock is on an open file, which children inherit: after ``kill -9`` it is free when the last of them has
    ended, so that none writes into what the next run makes. Processes that did not inherit it, because they were
    started without open files, are found by the variable :data:`MARK` of their environment.

    Args:
        output: The folder.
        tell: Called with a line when there is something to wait for.
        wait_seconds: How long to wait for the processes of an earlier run.

    Yields:
        The file descriptor for children to inherit.

    Raises:
        PipelineError: Another run holds the folder.
    """
    path = output / records.FOLDER / "lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        deadline = time.monotonic() + wait_seconds
        while not _taken(descriptor) or survivors(output):
            if deadline - time.monotonic() > wait_seconds - POLL_SECONDS:
                tell(f"  {output} is in use; waiting for another run, or for what is left of a stopped one, to end")
            if time.monotonic() > deadline:
                left = ", ".join(f"{pid} ({name})" for pid, name in survivors(output).items())
                which = f"a process of an earlier run, {left}," if left else "another run, or a process that it left,"
                raise PipelineError(f"{which} is using {output}; stop it first.")
            time.sleep(POLL_SECONDS)
        yield descriptor
    finally:
        os.close(descriptor)


def mark(output: Path) -> dict[str, str]:
    """Return the environment that processes of a run are found by."""
    return {MARK: str(output.resolve())}


def survivors(output: Path) -> dict[int, str]:
    """Return the processes of earlier runs in an output folder that are alive, with the names of their programs."""
    entry = f"{MARK}={output.resolve()}".encode()
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            # those of other users cannot be read
            if entry in (folder / "environ").read_bytes().split(b"\0") and folder.name != str(os.getpid()):
                found[int(folder.name)] = (folder / "comm").read_text(encoding="utf-8", errors="replace").strip()
        except OSError:
            continue
    return found


def _taken(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
