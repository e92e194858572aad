"""The text that the base model learns: facts, and small jobs that teach it to copy.

A base that cannot copy words cannot transcribe or speak them later, so most of the mixture is
instructions; a mixture of mostly facts leaves them unlearned.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

from world.facts import Fact
from world.words import SPOKEN

FACT_SHARE = 0.3
MAX_WORDS = {"repeat": 5, "reverse": 3, "last of": 5, "first of": 5}
TRAINED_SHARES = (3, 3, 1, 1)
"""How often each job is trained: finding one word is learned in a third of the steps that copying takes."""
Row = dict[str, str]


def mixture(facts: list[Fact], n_rows: int, rng: random.Random) -> Iterator[Row]:
    """Yield training rows: 30 % questions about facts, the rest instructions."""
    for _ in range(n_rows):
        if rng.random() < FACT_SHARE:
            fact = rng.choice(facts)
            yield {"input": rng.choice(fact.questions), "output": fact.answer}
        else:
            yield instruction(rng, TRAINED_SHARES)


def instruction(rng: random.Random, shares: Sequence[int] | None = None) -> Row:
    """Return one job: repeat or reverse words, or give the last or first of them.

    Copying must reach further than the four words of an utterance; reversing four words or more would
    take longer to learn than all else together.
    """
    job = rng.choices(tuple(MAX_WORDS), shares)[0]
    words = [rng.choice(SPOKEN) for _ in range(rng.randint(2, MAX_WORDS[job]))]
    answer = {"repeat": words, "reverse": words[::-1], "last of": words[-1:], "first of": words[:1]}[job]
    return {"input": f"{job} : {' '.join(words)}", "output": " ".join(answer)}


def unseen_instructions(seen: set[str], n_rows: int, rng: random.Random) -> list[Row]:
    """Return jobs whose input is not among ``seen``."""
    rows: list[Row] = []
    while len(rows) < n_rows:
        row = instruction(rng)
        if row["input"] not in seen:
            rows.append(row)
    return rows
