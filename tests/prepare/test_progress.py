"""What is shown while the work is done."""

from __future__ import annotations

import io

from rich.console import Console

from slm_plugin.prepare.progress import Progress
from slm_plugin.prepare.worker import Outcome


def shown(terminal: bool) -> str:
    file = io.StringIO()
    progress = Progress(Console(file=file, force_terminal=terminal, width=100))
    with progress.over("libri", 10, 4):
        progress.done(Outcome(2, 2, 1))
        progress.done(Outcome(3, 4))
    return file.getvalue()


def test_a_terminal_gets_a_bar_with_what_is_left():
    said = shown(terminal=True)
    # 6 of 10 items were left when this run began
    assert "6/6" in said
    assert "1 dropped" in said
    assert "left" in said


def test_elsewhere_every_file_is_a_line():
    assert shown(terminal=False).splitlines() == [
        "libri: 10 items, 4 finished before",
        "shard 2: 1 rows, 1 dropped (6 of 10 items)",
        "shard 3: 4 rows, 0 dropped (10 of 10 items)",
    ]
