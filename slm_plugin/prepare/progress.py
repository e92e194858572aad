"""How far the work is: a bar with the time left on a terminal, a line per file elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress

from slm_plugin.prepare.worker import Outcome


class Progress:
    """Progress over the items of one data set.

    Args:
        console: Where to write; a bar is drawn only where it is a terminal.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bar = RichProgress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[dropped]} dropped"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        self._task = TaskID(0)
        self._n_items, self._n_done, self._n_dropped = 0, 0, 0

    @contextmanager
    def over(self, name: str, n_items: int, n_before: int) -> Iterator[None]:
        """Show the work on ``n_items`` while the block runs; ``n_before`` were finished by an earlier run."""
        self._n_items, self._n_done, self._n_dropped = n_items, n_before, 0
        # what an earlier run did says nothing about the speed of this one: the total counts only what is left
        self._task = self._bar.add_task(name, total=n_items - n_before, dropped=0)
        if not self._console.is_terminal:
            self._console.print(f"{name}: {n_items} items, {n_before} finished before")
        with self._bar:
            yield

    def note(self, line: str) -> None:
        """Show a line."""
        self._console.print(line, markup=False, highlight=False)

    def done(self, outcome: Outcome) -> None:
        """Take the outcome of a shard."""
        self._n_done += outcome.n_items
        self._n_dropped += outcome.n_dropped
        self._bar.update(self._task, advance=outcome.n_items, dropped=self._n_dropped)
        if not self._console.is_terminal:
            self._console.print(
                f"shard {outcome.shard}: {outcome.n_items - outcome.n_dropped} rows, {outcome.n_dropped} dropped"
                f" ({self._n_done} of {self._n_items} items)"
            )
