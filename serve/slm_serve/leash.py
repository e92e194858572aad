"""Run a command that ends when its parent does, however that ends: ``python -m slm_serve.leash PARENT COMMAND...``.

A gateway that is killed outright cannot stop its engine, which would go on to hold gigabytes. Linux
sends a signal to a process when its parent has died; elsewhere the command just runs.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1  # <sys/prctl.h>


def main(arguments: list[str]) -> None:
    """Bind this process to its parent and become the command.

    Args:
        arguments: Process id of the parent, then the command.
    """
    parent, *command = arguments
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != int(parent):
            # it died before the line above
            sys.exit(1)
    os.execvp(command[0], command)


if __name__ == "__main__":
    main(sys.argv[1:])
