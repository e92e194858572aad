"""How numbers are written, on the page and in the table."""

from __future__ import annotations

from collections.abc import Callable, Mapping

NOTHING = "\N{EN DASH}"
"""Stands for a number that was not measured or is not defined."""

STYLES: Mapping[str, Callable[[float], str]] = {
    "score": lambda number: f"{number:.3f}",
    "signed": lambda number: f"{number:+.3f}",
    "percent": lambda number: f"{number:.1f}",
    "count": lambda number: f"{number:g}" if number != int(number) else str(int(number)),
    "seconds": lambda number: f"{number:.1f}",
    "loss": lambda number: f"{number:.4g}",
}


def written(number: float | None, style: str = "score") -> str:
    """Write a number: ``score`` with three places, ``signed`` with its sign, ``percent`` and ``seconds`` with one."""
    return NOTHING if number is None else STYLES[style](number)
