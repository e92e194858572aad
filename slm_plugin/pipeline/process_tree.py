"""Run a command, and end every process below it when it ends, when this process is stopped, or without a parent.

A program of its own, started as ``python -I -S process_tree.py GRACE WORD...``; it imports the standard library alone.
On Linux it adopts every process whose parent has ended (``PR_SET_CHILD_SUBREAPER``), so that none escapes by a session
of its own, and it ends when the last of them has. Until then it holds the file descriptors that it inherited open,
such as a lock. Its exit status is that of the command.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
import time
from collections.abc import Callable
from typing import Any, NoReturn

POLL_SECONDS = 0.5
QUIET_SECONDS = 2.0
"""How long what a command left behind has to end by itself; no time if it left nothing."""

_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36
_SIGNALS = (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_NOT_FOUND = 127


def main(grace: float, words: list[str]) -> NoReturn:
    """Run the command, and exit as it did when nothing of it is left.

    Args:
        grace: Seconds between SIGTERM and SIGKILL.
        words: The command line.
    """
    parent = os.getppid()
    adopt()
    _prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    tree = _Tree(_start(words, before))
    while tree.status is None and os.getppid() == parent:
        received = signal.sigtimedwait(_SIGNALS, POLL_SECONDS)
        tree.reap()
        if received is not None and received.si_signo != signal.SIGCHLD:
            break
    if tree.status is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(tree.child, signal.SIGTERM)
        tree.wait(grace, lambda: tree.status is not None)
    _end(tree, grace)
    _exit(tree.status or 0)


def adopt() -> None:
    """Let this process adopt every process below it whose parent ends."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def end_rest(grace: float) -> None:
    """End every process below this one: by itself, by SIGTERM, and then by SIGKILL.

    Args:
        grace: Seconds between SIGTERM and SIGKILL.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGCHLD,))
    _end(_Tree(0), grace)
    signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _end(tree: _Tree, grace: float) -> None:
    tree.wait(QUIET_SECONDS)
    tree.signal(signal.SIGTERM)
    tree.wait(grace)
    while not tree.is_empty:
        tree.signal(signal.SIGKILL)
        tree.wait(POLL_SECONDS)


class _Tree:
    """The processes below this one.

    Args:
        child: The command.
    """

    def __init__(self, child: int) -> None:
        self.child = child
        self.status: int | None = None
        self.is_empty = False

    def reap(self) -> None:
        """Take the exit status of every process that has ended."""
        try:
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if pid == 0:
                    return
                if pid == self.child:
                    self.status = os.waitstatus_to_exitcode(status)
        except ChildProcessError:
            self.is_empty = True

    def wait(self, seconds: float, enough: Callable[[], bool] = lambda: False) -> None:
        """Wait until all have ended, at most so long."""
        end = time.monotonic() + seconds
        self.reap()
        while not (self.is_empty or enough()) and (left := end - time.monotonic()) > 0:
            signal.sigtimedwait((signal.SIGCHLD,), min(left, POLL_SECONDS))
            self.reap()

    def signal(self, number: signal.Signals) -> None:
        """Signal all that are left."""
        for pid in [] if self.is_empty else descendants(os.getpid()) or filter(None, [self.child]):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, number)


def descendants(root: int) -> list[int]:
    """Return the processes below a process; none on a system without ``/proc``."""
    children: dict[int, list[int]] = {}
    with contextlib.suppress(FileNotFoundError):
        for name in filter(str.isdigit, os.listdir("/proc")):
            with contextlib.suppress(OSError), open(f"/proc/{name}/stat", encoding="utf-8", errors="replace") as file:
                # the name of a program may hold blanks and brackets
                parent = int(file.read().rpartition(")")[2].split()[1])
                children.setdefault(parent, []).append(int(name))
    found, todo = [], [root]
    while todo:
        below = children.get(todo.pop(), [])
        found += below
        todo += below
    return found


def _start(words: list[str], mask: set[Any]) -> int:
    child = os.fork()
    if child:
        return child
    try:
        os.setsid()
        _prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        # Python ignores it, and a command inherits that
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        os.execvp(words[0], words)
    except OSError as error:
        os.write(2, f"{words[0]} cannot be started: {error.strerror}\n".encode())
    finally:
        os._exit(_NOT_FOUND)


def _exit(status: int) -> NoReturn:
    if status < 0:
        with contextlib.suppress(OSError):
            signal.signal(-status, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {-status})
        os.kill(os.getpid(), -status)
    os._exit(status if status >= 0 else 128 - status)


def _prctl(option: int, value: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(option, value)


if __name__ == "__main__":
    main(float(sys.argv[1]), sys.argv[2:])
