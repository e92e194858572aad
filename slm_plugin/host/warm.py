"""A process that has the host imported and forks every host command, and every evaluation, from there.

Importing LLaMA-Factory takes 10 to 15 seconds and a pipeline of small steps starts it many times.
This process imports it once; each command runs the stock command line, or ours, in a forked child of its own,
so that nothing is shared between commands but the imported code. It stays single-threaded and
touches no device, so that forking is safe; use it on machines without an accelerator.

Protocol: one JSON object per line. In: ``{"id", "program", "arguments", "log", "environments"}``, the program being
``llamafactory-cli`` or ``slm``, with one environment per process that trains together. Out: ``{"ready": true}`` once,
then ``{"id", "pid"}`` with the process group of a command and ``{"id", "status", "cpu_seconds"}`` when all of it has
ended.
"""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import json
import os
import select
import signal
import sys
from collections.abc import Callable
from importlib.metadata import distribution
from typing import Any, NoReturn

from slm_plugin.pipeline import process_tree

POLL_SECONDS = 0.1
STOP_SECONDS = float(os.environ.get("SLM_PLUGIN_STOP_SECONDS", "10"))
"""How long what a command left behind has to end after SIGTERM."""


def main() -> None:
    """Serve commands from standard input until it is closed and every command has ended."""
    import llamafactory.train.tuner  # noqa: F401  # the import is the purpose

    # every child collects garbage after its training; it need not look through the imports, nor copy their pages
    gc.collect()
    gc.freeze()
    # commands are stopped one by one by whoever asked for them
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _tell({"ready": True})
    running: dict[int, _Job] = {}
    pending, is_open = b"", True
    # whoever closes our input without waiting is gone: nobody is left to want the results
    while is_open or running:
        if is_open and select.select([0], [], [], POLL_SECONDS)[0]:
            received = os.read(0, 65_536)
            is_open = bool(received)
            for child in () if is_open else list(running):
                _end(child)
            *lines, pending = (pending + received).split(b"\n")
            for line in lines:
                job = _start(json.loads(line))
                running |= dict.fromkeys(job.left, job)
        _collect(running, block=not is_open)


@dataclasses.dataclass
class _Job:
    """A command whose processes are running.

    Attributes:
        identity: What it is called in messages.
        left: Processes that have not ended.
        status: The first exit status that was not 0, or 0.
        cpu_seconds: Processor time of those that have ended, user and system.
    """

    identity: str
    left: set[int] = dataclasses.field(default_factory=set)
    status: int = 0
    cpu_seconds: float = 0.0


def _start(request: dict[str, Any]) -> _Job:
    """Fork a command's processes, all in the group of the first."""
    job, group = _Job(request["id"]), 0
    for rank, environment in enumerate(request["environments"]):
        child = os.fork()
        if child == 0:
            log = request["log"] if rank == 0 else f"{request['log']}.{rank}"
            _run([request["program"], *request["arguments"]], log, environment, group)
        # also here, so that the group is there before anybody signals it
        with contextlib.suppress(PermissionError, ProcessLookupError):
            os.setpgid(child, group)
        group = group or child
        job.left.add(child)
    _tell({"id": job.identity, "pid": group})
    return job


def _collect(running: dict[int, _Job], block: bool) -> None:
    while running:
        child, status, usage = os.wait4(-1, 0 if block else os.WNOHANG)
        if child == 0:
            return
        job = running.pop(child)
        job.left.discard(child)
        job.cpu_seconds += usage.ru_utime + usage.ru_stime
        code = os.waitstatus_to_exitcode(status)
        if code != 0 and job.status == 0:
            job.status = code
            # the others would wait for it forever
            for other in job.left:
                _end(other)
        if not job.left:
            _tell({"id": job.identity, "status": job.status, "cpu_seconds": round(job.cpu_seconds, 2)})


def _end(child: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(child, signal.SIGTERM)


def _run(words: list[str], log: str, environment: dict[str, str], group: int) -> NoReturn:
    """Become a command line with its output in a log."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    os.setpgid(0, group)
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
    for stream in (1, 2):
        os.dup2(output, stream)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.environ.update(environment)
    sys.argv = words
    process_tree.adopt()
    status = 0
    try:
        _main_of(words[0])()
    except SystemExit as stop:
        status = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except BaseException as error:
        sys.excepthook(type(error), error, error.__traceback__)
        status = 1
    sys.stdout.flush()
    sys.stderr.flush()
    if process_tree.descendants(os.getpid()):
        # trackers of shared memory end when their pipe is closed, and ignore SIGTERM
        os.closerange(3, os.sysconf("SC_OPEN_MAX"))
        process_tree.end_rest(STOP_SECONDS)
    # the parent's exit handlers are not this child's to run
    os._exit(status)


def _main_of(program: str) -> Callable[[], object]:
    if program == "slm":
        # the command line stands above this package: it is found as the shell finds it, by its installed name
        (ours,) = distribution("slm-plugin").entry_points.select(group="console_scripts", name=program)
        return ours.load()
    from llamafactory.cli import main as host_main

    return host_main


def _tell(message: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
