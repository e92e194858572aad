"""The figure of ``docs/replica.md``: every method's scores as a heat map, and what merging does to tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt
import numpy as np

ROW_INCHES = 0.24


def draw(
    path: Path,
    means: Mapping[str, Mapping[str, float]],
    skills: Mapping[str, str],
    merging: Mapping[str, Any] | None,
    kinds: Sequence[str],
) -> None:
    """Draw the figure, the same bytes for the same numbers.

    Args:
        path: Where to write the SVG.
        means: Score by method and skill; error rates are coloured by what they lack to 1.
        skills: Names of the columns by skill.
        merging: Content of ``probabilities_heard.json``; None where it has not been measured.
        kinds: Kinds of tokens.
    """
    height = max(3.0, 1.2 + ROW_INCHES * len(means))
    style = {"svg.hashsalt": "replica", "font.size": 8, "axes.titlesize": 9}
    with matplotlib.rc_context(style):
        figure, (left, right) = plt.subplots(1, 2, figsize=(11.5, height), width_ratios=[2.4, 1], layout="constrained")
        _heat(left, means, skills)
        _merging(right, merging, kinds)
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}")
        figure.savefig(temporary, format="svg", metadata={"Date": None})
        plt.close(figure)
    temporary.replace(path)


def _heat(axes: Any, means: Mapping[str, Mapping[str, float]], skills: Mapping[str, str]) -> None:
    values_MS = np.array([[scores.get(skill, np.nan) for skill in skills] for scores in means.values()])
    values_MS = values_MS.reshape(len(means), len(skills))
    is_error = np.array([skill.endswith("_wer") for skill in skills])
    good_MS = np.clip(np.where(is_error, 1 - values_MS, values_MS), 0, 1)
    axes.imshow(good_MS, aspect="auto", cmap="cividis", vmin=0, vmax=1)
    for row, column in np.argwhere(np.isfinite(values_MS)):
        shade = "black" if good_MS[row, column] > 0.5 else "white"
        axes.text(column, row, f"{values_MS[row, column]:.2f}", ha="center", va="center", color=shade, fontsize=7)
    axes.set_xticks(range(len(skills)), skills.values(), rotation=25, ha="right")
    axes.set_yticks(range(len(means)), means)
    axes.set_title("after the last stage; light is good, error rates counted from the other end")


def _merging(axes: Any, merging: Mapping[str, Any] | None, kinds: Sequence[str]) -> None:
    models = merging["models"] if merging is not None else {}
    for name, found in models.items():
        shares = [found.get(kind, {}).get("below_half", np.nan) for kind in kinds]
        axes.plot(range(len(kinds)), shares, marker="o", markersize=3, linewidth=1, label=name)
    axes.set_xticks(range(len(kinds)), kinds, rotation=25, ha="right")
    axes.set_ylim(-0.02, 1)
    axes.set_title("share of tokens below .5, heard questions")
    if models:
        axes.legend(frameon=False)
