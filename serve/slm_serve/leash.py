"""Run a command whose whole process tree ends with its parent: ``python -m slm_serve.leash PARENT COMMAND...``.

A gateway that is killed outright cannot stop its engine, which would go on to hold gigabytes. vLLM starts processes of
its own, and leaves them behind if it is killed while it loads a model. This process therefore stays in between: it
adopts every descendant that loses its parent, and ends them all if the gateway dies, if it gets SIGTERM, or if the
command ends. Linux only; elsewhere the command just runs.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from types import FrameType

_PR_SET_PDEATHSIG = 1  # <sys/prctl.h>
_PR_SET_CHILD_SUBREAPER = 36
GRACE_S = 15.0
"""Seconds from SIGTERM to SIGKILL."""

_POLL_S = 0.02
_KILL_LIMIT_S = 5.0


def main(arguments: list[str]) -> int:
    """Bind this process to its parent, run the command, and end its process tree.

    Args:
        arguments: Process id of the parent, then the command.

    Returns:
        What the command ended with; 128 and the number of the signal that ended it.
    """
    parent, *command = arguments
    if sys.platform != "linux":
        os.execvp(command[0], command)
    signal.signal(signal.SIGTERM, _end)
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_CHILD_SUBREAPER, 1)
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    child: subprocess.Popen[bytes] | None = None
    try:
        if os.getppid() != int(parent):
            # it died before the line above
            return 1
        child = subprocess.Popen(command)
        code = child.wait()
        return code if code >= 0 else 128 - code
    except _EndError:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        if child is not None and child.poll() is None:
            child.terminate()
            with suppress(subprocess.TimeoutExpired):
                child.wait(GRACE_S)
        return 128 + signal.SIGTERM
    finally:
        _kill_descendants()


class _EndError(Exception):
    """SIGTERM came."""


def _end(number: int, frame: FrameType | None) -> None:
    raise _EndError


def _kill_descendants() -> None:
    """Kill everything below this process; each of them becomes our child when its parent is gone."""
    limit = time.monotonic() + _KILL_LIMIT_S
    while time.monotonic() < limit:
        with suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        found = _children(os.getpid())
        if not found:
            return
        for process in found:
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        time.sleep(_POLL_S)


def _children(process: int) -> list[int]:
    """Return the process ids of all threads' children."""
    found: list[int] = []
    for thread in os.listdir(f"/proc/{process}/task"):
        with suppress(OSError), open(f"/proc/{process}/task/{thread}/children", encoding="ascii") as file:
            found += map(int, file.read().split())
    return found


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
