"""A process that has the host imported and forks every host command from there.

Importing LLaMA-Factory takes 10 to 15 seconds and a pipeline of small steps starts it many times.
This process imports it once; each command runs the stock command line in a forked child of its own,
so that nothing is shared between commands but the imported code. It stays single-threaded and
touches no device, so that forking is safe; use it on machines without an accelerator.

Protocol: one JSON object per line. In: ``{"id", "arguments", "log", "environment"}``. Out:
``{"ready": true}`` once, then ``{"id", "pid"}`` and ``{"id", "status"}`` per command.
"""

from __future__ import annotations

import json
import os
import select
import signal
import sys
from typing import Any, NoReturn

POLL_SECONDS = 0.1


def main() -> None:
    """Serve commands from standard input until it is closed and every command has ended."""
    import llamafactory.train.tuner  # noqa: F401  # the import is the purpose

    # commands are stopped one by one by whoever asked for them
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _tell({"ready": True})
    running: dict[int, str] = {}
    pending, is_open = b"", True
    # whoever closes our input without waiting is gone: nobody is left to want the results
    while is_open or running:
        if is_open and select.select([0], [], [], POLL_SECONDS)[0]:
            received = os.read(0, 65_536)
            is_open = bool(received)
            for child in () if is_open else running:
                os.killpg(child, signal.SIGTERM)
            *lines, pending = (pending + received).split(b"\n")
            for line in lines:
                job = json.loads(line)
                child = os.fork()
                if child == 0:
                    _run(job)
                running[child] = job["id"]
                _tell({"id": job["id"], "pid": child})
        _report_ended(running, block=not is_open)


def _report_ended(running: dict[int, str], block: bool) -> None:
    while running:
        child, status = os.waitpid(-1, 0 if block else os.WNOHANG)
        if child == 0:
            return
        if child in running:
            _tell({"id": running.pop(child), "status": os.waitstatus_to_exitcode(status)})


def _run(job: dict[str, Any]) -> NoReturn:
    """Become the stock command line with its output in the job's log."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    os.setpgid(0, 0)
    log = os.open(job["log"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    for stream in (1, 2):
        os.dup2(log, stream)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.environ.update(job["environment"])
    sys.argv = ["llamafactory-cli", *job["arguments"]]
    status = 0
    try:
        from llamafactory.cli import main as host_main

        host_main()
    except SystemExit as stop:
        status = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except BaseException as error:
        sys.excepthook(type(error), error, error.__traceback__)
        status = 1
    sys.stdout.flush()
    sys.stderr.flush()
    # the parent's exit handlers are not this child's to run
    os._exit(status)


def _tell(message: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
