"""The pictures of a data card, as PNG files that are the same for the same numbers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from slm_plugin.prepare.statistics import Statistics

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PICTURES = {
    "durations.png": "How long the utterances are",
    "units.png": "How often each unit occurs, the most frequent first",
    "reasons.png": "What was noted and what was dropped",
}
"""Files and what they show."""


def draw_all(found: Statistics, folder: Path) -> None:
    """Draw every picture into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    draw(folder / "durations.png", lambda axes: _durations(axes, found.seconds_N))
    draw(folder / "units.png", lambda axes: _units(axes, found.counts_K))
    counts = {f"flag {name}": n for name, n in found.flags.items() if n}
    counts |= {f"dropped {name}": n for name, n in found.reasons.items()}
    draw(folder / "reasons.png", lambda axes: _bars(axes, counts))


def draw(path: Path, paint: Callable[[Axes], None], size: tuple[float, float] = (6.4, 3.2)) -> None:
    """Draw one picture without a display, and move it into place."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    paint(figure.add_subplot())
    temporary = path.with_name(f".{path.name}")
    # without the version of matplotlib in the file
    figure.savefig(temporary, format="png", metadata={"Software": None})
    temporary.replace(path)


def _durations(axes: Axes, seconds_N: np.ndarray) -> None:
    axes.hist(seconds_N, bins=40, color="#3b6ea5")
    axes.set_xlabel("seconds")
    axes.set_ylabel("utterances")


def _units(axes: Axes, counts_K: np.ndarray) -> None:
    used = np.sort(counts_K[counts_K > 0])[::-1]
    axes.plot(np.arange(1, len(used) + 1), used, color="#3b6ea5")
    if len(used):
        axes.set_xscale("log")
        axes.set_yscale("log")
    axes.set_xlabel(f"rank of the unit ({len(used)} of {len(counts_K)} are used)")
    axes.set_ylabel("occurrences")


def _bars(axes: Axes, counts: Mapping[str, int]) -> None:
    names = list(counts)[::-1]
    axes.barh(names, [counts[name] for name in names], color="#3b6ea5")
    axes.set_xlabel("items" if names else "nothing was noted, nothing was dropped")
