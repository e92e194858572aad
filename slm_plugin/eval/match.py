"""Whether an answer is a right one."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

Match = Literal["exact", "contains"]


def matches(answer: str, right: Iterable[str], how: Match) -> bool:
    """Tell whether an answer equals one of the right ones, or contains one as whole words.

    Args:
        answer: The answer, normalised.
        right: Right answers, normalised; empty ones match nothing.
        how: ``exact`` or ``contains``.
    """
    if how == "exact":
        return any(answer == one for one in right if one)
    return any(f" {one} " in f" {answer} " for one in right if one)
