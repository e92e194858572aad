"""Shows which steps run and how far they are: bars on a terminal, one line per event elsewhere."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.progress import Progress as RichProgress

POLL_SECONDS = 0.5


class Progress:
    """Progress of a pipeline on a console.

    Args:
        console: Where to write; bars are drawn only where it is a terminal.
        logs: Whether lines of the steps' logs are shown as they are written, each behind the name of its step.
    """

    def __init__(self, console: Console, logs: bool = False) -> None:
        self.console = console
        self.logs = logs
        self._bars = RichProgress(
            TextColumn("{task.description:<20}"),
            BarColumn(),
            TextColumn("{task.fields[note]:>14}"),
            TimeElapsedColumn(),
            console=console,
            disable=not console.is_terminal,
        )

    def __enter__(self) -> Progress:
        self._bars.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._bars.stop()

    def skipped(self, name: str, seconds: float) -> None:
        """Say that a step was finished before."""
        self.console.print(f"  {name}: finished before ({seconds:.0f} s then)")

    def tell(self, line: str) -> None:
        """Show a line."""
        self.console.print(line, markup=False, highlight=False)

    @contextmanager
    def step(self, name: str, trainer_log: Path | None, log: Path) -> Iterator[None]:
        """Show a step while the block runs.

        Args:
            name: Name of the step.
            trainer_log: The host's ``trainer_log.jsonl``, whose step counts move the bar.
            log: What the step prints.
        """
        started = time.monotonic()
        task = self._bars.add_task(name, total=None, note="")
        if not self.console.is_terminal:
            self.console.print(f"  {name}: started")
        stop = threading.Event()
        watcher = threading.Thread(target=self._watch, args=(name, task, trainer_log, log, stop), daemon=True)
        watcher.start()
        finished = False
        try:
            yield
            finished = True
        finally:
            stop.set()
            watcher.join()
            self._bars.remove_task(task)
            seconds = time.monotonic() - started
            self.console.print(f"  {name}: {'ended' if finished else 'stopped'} after {seconds:.0f} s")

    def _watch(self, name: str, task: TaskID, trainer_log: Path | None, log: Path, stop: threading.Event) -> None:
        follower = _Follower(log)
        while True:
            last = stop.wait(POLL_SECONDS)
            for line in follower.lines(last) if self.logs else ():
                self.tell(f"{name} | {line}")
            if last:
                return
            counts = _last_counts(trainer_log) if trainer_log is not None else None
            if counts is not None:
                done, total = counts
                self._bars.update(task, completed=done, total=total, note=f"{done}/{total} steps")


class _Follower:
    """Reads a log as it grows; of a progress bar that rewrites its line only the last state is a line."""

    def __init__(self, log: Path) -> None:
        self._log = log
        self._read = 0
        self._rest = b""

    def lines(self, last: bool) -> list[str]:
        """Return the lines that were finished since the last call; the unfinished one too where it is the ``last``."""
        try:
            with self._log.open("rb") as file:
                file.seek(self._read)
                new = file.read()
        except OSError:
            new = b""
        self._read += len(new)
        *whole, self._rest = (self._rest + new).split(b"\n")
        if last and self._rest:
            whole.append(self._rest)
        shown = (line.rstrip(b"\r").rpartition(b"\r")[2].decode(errors="replace").rstrip() for line in whole)
        return [line for line in shown if line]


def _last_counts(trainer_log: Path) -> tuple[int, int] | None:
    try:
        last = json.loads(trainer_log.read_text(encoding="utf-8").splitlines()[-1])
        return int(last["current_steps"]), int(last["total_steps"])
    except (OSError, ValueError, IndexError, KeyError):
        return None
