"""Shows which steps run and how far they are: bars on a terminal, one line per event elsewhere."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as RichProgress

POLL_SECONDS = 0.5


class Progress:
    """Progress of a pipeline on a console.

    Args:
        console: Where to write; bars are drawn only where it is a terminal.
    """

    def __init__(self, console: Console) -> None:
        self.console = console
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

    @contextmanager
    def step(self, name: str, trainer_log: Path | None) -> Iterator[None]:
        """Show a step while the block runs.

        Args:
            name: Name of the step.
            trainer_log: The host's ``trainer_log.jsonl``, whose step counts move the bar.
        """
        started = time.monotonic()
        task = self._bars.add_task(name, total=None, note="")
        if not self.console.is_terminal:
            self.console.print(f"  {name}: started")
        stop = threading.Event()
        watcher = threading.Thread(target=self._watch, args=(task, trainer_log, stop), daemon=True)
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

    def _watch(self, task: int, trainer_log: Path | None, stop: threading.Event) -> None:
        while trainer_log is not None and not stop.wait(POLL_SECONDS):
            counts = _last_counts(trainer_log)
            if counts is not None:
                done, total = counts
                self._bars.update(task, completed=done, total=total, note=f"{done}/{total} steps")  # type: ignore[arg-type]


def _last_counts(trainer_log: Path) -> tuple[int, int] | None:
    try:
        last = json.loads(trainer_log.read_text(encoding="utf-8").splitlines()[-1])
        return int(last["current_steps"]), int(last["total_steps"])
    except (OSError, ValueError, IndexError, KeyError):
        return None
