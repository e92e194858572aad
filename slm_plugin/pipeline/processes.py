"""Child processes of a pipeline: logged, and stopped with everything that they started."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

from slm_plugin.pipeline import process_tree

STOP_SECONDS = 10.0
"""How long a command has to end after SIGTERM."""

_MARGIN_SECONDS = 5.0


class Child(Protocol):
    """A running command.

    Attributes:
        cpu_seconds: Processor time it took, known after :meth:`wait`; None where it is not measured.
    """

    cpu_seconds: float | None

    def wait(self) -> int:
        """Wait for its end and return its exit status."""
        ...

    def stop(self) -> None:
        """End it and everything it started."""
        ...


class CommandChild:
    """A command line as a child process.

    Args:
        arguments: The command line.
        log: File for its output.
        environment: Variables beside the inherited ones.
        inherited: File descriptors that it holds open too.
    """

    cpu_seconds: float | None = None

    def __init__(
        self, arguments: Sequence[str], log: Path, environment: Mapping[str, str], inherited: Sequence[int] = ()
    ) -> None:
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                guarded(arguments),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, **environment},
                start_new_session=True,
                pass_fds=inherited,
            )

    def wait(self) -> int:
        """Wait for its end and return its exit status."""
        return self._process.wait()

    def stop(self) -> None:
        """End it and everything that it started: by SIGTERM, then by SIGKILL."""
        _stop(self._process)


class WarmHost:
    """Runs host commands, and our own, as forks of one process that has the host imported.

    Args:
        log: File for the output of the importing process itself.
        environment: Variables beside the inherited ones; fixed for all commands.
        inherited: File descriptors that it and every command hold open too.
    """

    def __init__(self, log: Path, environment: Mapping[str, str], inherited: Sequence[int] = ()) -> None:
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                guarded([sys.executable, "-m", "slm_plugin.host.warm"]),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=output,
                text=True,
                env={**os.environ, **environment},
                start_new_session=True,
                pass_fds=inherited,
            )
        self._changed = threading.Condition()
        self._pids: dict[str, int] = {}
        self._statuses: dict[str, int] = {}
        self._cpu_seconds: dict[str, float] = {}
        self._gone = False
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def start(
        self,
        arguments: Sequence[str],
        log: Path,
        environment: Mapping[str, str],
        processes: int = 1,
        program: Literal["llamafactory-cli", "slm"] = "llamafactory-cli",
    ) -> WarmChild:
        """Run a command line with these arguments in a fork, or in several that train together."""
        identity = uuid.uuid4().hex
        job = {
            "id": identity,
            "program": program,
            "arguments": list(arguments),
            "log": str(log.absolute()),
            "environments": [{**environment, **rank} for rank in _ranks(processes)],
        }
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(job) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            with self._changed:
                self._gone = True
        return WarmChild(self, identity)

    def wait(self, identity: str) -> int:
        """Wait for a command's end; 1 where the importing process itself died."""
        with self._changed:
            self._changed.wait_for(lambda: identity in self._statuses or self._gone)
            return self._statuses.get(identity, 1)

    def cpu_seconds(self, identity: str) -> float | None:
        """Return the processor time of a command that has ended."""
        with self._changed:
            return self._cpu_seconds.get(identity)

    def pid(self, identity: str) -> int | None:
        """Return the process id of a command that is running."""
        with self._changed:
            return None if identity in self._statuses else self._pids.get(identity)

    def close(self) -> None:
        """End the importing process; commands must have ended before."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            _stop(self._process)
        self._reader.join()
        assert self._process.stdout is not None
        self._process.stdout.close()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            # the host prints to standard output while it is imported; only our lines are JSON objects
            if not line.startswith("{"):
                continue
            message = json.loads(line)
            with self._changed:
                if "status" in message:
                    self._statuses[message["id"]] = message["status"]
                    self._cpu_seconds[message["id"]] = message["cpu_seconds"]
                elif "pid" in message:
                    self._pids[message["id"]] = message["pid"]
                self._changed.notify_all()
        with self._changed:
            self._gone = True
            self._changed.notify_all()


class WarmChild:
    """A command that a :class:`WarmHost` runs."""

    cpu_seconds: float | None = None

    def __init__(self, host: WarmHost, identity: str) -> None:
        self._host, self._identity = host, identity

    def wait(self) -> int:
        """Wait for its end and return its exit status."""
        status = self._host.wait(self._identity)
        self.cpu_seconds = self._host.cpu_seconds(self._identity)
        return status

    def stop(self) -> None:
        """Ask its group to end and wait."""
        pid = self._host.pid(self._identity)
        if pid is not None:
            _signal_group(pid, signal.SIGTERM)
            killer = threading.Timer(STOP_SECONDS, _signal_group, (pid, signal.SIGKILL))
            killer.start()
            self.wait()
            killer.cancel()


def _ranks(processes: int) -> list[dict[str, str]]:
    """Return what torchrun would tell each process; nothing where there is only one."""
    if processes == 1:
        return [{}]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    shared |= {"WORLD_SIZE": str(processes), "LOCAL_WORLD_SIZE": str(processes)}
    return [{**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(processes)]


def guarded(arguments: Sequence[str]) -> list[str]:
    """Return a command line that runs another and ends with everything that it started.

    See :mod:`slm_plugin.pipeline.process_tree`, which is run as a file: it starts in a tenth of the time of a module.
    """
    return [sys.executable, "-I", "-S", process_tree.__file__, str(STOP_SECONDS), *arguments]


def _stop(process: subprocess.Popen[Any]) -> None:
    process.terminate()
    try:
        process.wait(2 * STOP_SECONDS + _MARGIN_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _signal_group(pid: int, number: signal.Signals) -> None:
    try:
        os.killpg(pid, number)
    except ProcessLookupError:
        return
