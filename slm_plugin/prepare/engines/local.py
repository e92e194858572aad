"""Processes of this machine."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection, wait
from typing import Any

from slm_plugin.errors import DataError, SlmError
from slm_plugin.prepare.job import Job
from slm_plugin.prepare.parts import Parts
from slm_plugin.prepare.worker import Outcome, Worker


def run(job: Job, parts: Parts, shards: Sequence[int], report: Callable[[Outcome], None]) -> None:
    """Make shards with ``job.options.workers`` processes; with one, in this process.

    Raises:
        SlmError: What a worker raised, or that one was killed.
    """
    if job.options.workers == 1 or len(shards) <= 1:
        worker = Worker(job, parts)
        for shard in shards:
            report(worker.run(shard))
        return
    _Pool(job, min(job.options.workers, len(shards))).run(shards, report)


class _Pool:
    """Processes that are told the next shard as soon as they are free."""

    def __init__(self, job: Job, n_workers: int) -> None:
        # a fork would copy the threads and devices of torch in an unusable state
        context = multiprocessing.get_context("spawn")
        self._processes: dict[Connection, Any] = {}
        self._working_on: dict[Connection, int] = {}
        for _ in range(n_workers):
            here, there = context.Pipe()
            process = context.Process(target=_serve, args=(there, job), daemon=True)
            process.start()
            there.close()
            self._processes[here] = process

    def run(self, shards: Sequence[int], report: Callable[[Outcome], None]) -> None:
        left = list(reversed(shards))
        try:
            for connection in self._processes:
                self._give(connection, left)
            while self._working_on:
                for ready in wait(list(self._working_on)):
                    assert isinstance(ready, Connection)
                    report(self._take(ready))
                    self._give(ready, left)
        finally:
            for connection, process in self._processes.items():
                connection.close()
                if self._working_on:
                    process.terminate()
                process.join()

    def _give(self, connection: Connection, left: list[int]) -> None:
        if left:
            self._working_on[connection] = left.pop()
            connection.send(self._working_on[connection])

    def _take(self, connection: Connection) -> Outcome:
        try:
            answer = connection.recv()
        except (EOFError, OSError):
            process, shard = self._processes[connection], self._working_on[connection]
            process.join()
            raise DataError(
                f"the process that made shard {shard} was ended by signal or status {process.exitcode} (out of"
                " memory?). Finished files are kept: start it again to go on, perhaps with fewer workers."
            ) from None
        if isinstance(answer, Exception):
            raise answer
        del self._working_on[connection]
        assert isinstance(answer, Outcome)
        return answer


def _serve(connection: Connection, job: Job) -> None:
    """Make the shards that come through a connection until its other end is closed."""
    worker: Worker | None = None
    while True:
        try:
            shard = connection.recv()
        except EOFError:
            return
        try:
            worker = worker or Worker(job)
            connection.send(worker.run(shard))
        except SlmError as error:
            # an error with arguments of its own does not survive pickling
            connection.send(DataError(str(error)))
            return
        except KeyboardInterrupt:
            return
        except BrokenPipeError:
            return
