"""What is true in the world: who has what, and sums up to ten.

Some facts are never asked aloud in training. They are *cells* of the grid of people and attributes,
not people: every person, attribute and value is heard, only their meeting is new.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from world.words import NUMBERS, PEOPLE, VALUES

GRID_SEED, SUM_SEED = 11, 5
HELD_OUT_ONE_IN = 4
N_HELD_OUT_SUMS = 16


@dataclass(frozen=True)
class Fact:
    """One fact.

    Attributes:
        questions: Ways to ask for it.
        answer: One word.
        kind: ``grid`` or ``sum``.
        held_out: Whether it is never asked aloud in training.
    """

    questions: tuple[str, ...]
    answer: str
    kind: str
    held_out: bool


def all_facts() -> list[Fact]:
    """Return the 66 sums and the 60 facts of the grid."""
    return [*_sums(), *_grid()]


def _grid() -> list[Fact]:
    rng = random.Random(GRID_SEED)
    facts = []
    for column, (attribute, values) in enumerate(VALUES.items()):
        # 12 people share 8 values: each value at least once, four of them twice
        owned = [*values, *rng.sample(values, len(PEOPLE) - len(values))]
        rng.shuffle(owned)
        for row, (person, value) in enumerate(zip(PEOPLE, owned, strict=True)):
            questions = (f"what is the {attribute} of {person}", f"{attribute} of {person}")
            facts.append(Fact(questions, value, "grid", (row + column) % HELD_OUT_ONE_IN == 0))
    return facts


def _sums() -> list[Fact]:
    pairs = [(a, b) for a in range(len(NUMBERS)) for b in range(len(NUMBERS) - a)]
    held_out = set(random.Random(SUM_SEED).sample(pairs, N_HELD_OUT_SUMS))
    return [
        Fact(
            (f"what is {NUMBERS[a]} plus {NUMBERS[b]}", f"{NUMBERS[a]} plus {NUMBERS[b]}"),
            NUMBERS[a + b],
            "sum",
            (a, b) in held_out,
        )
        for a, b in pairs
    ]
