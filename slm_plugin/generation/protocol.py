"""What an engine of text generation must answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class Sampling:
    """How tokens are drawn.

    Attributes:
        temperature: 0 takes the most likely token.
        top_p: Share of probability that is drawn from, most likely tokens first.
        max_new_tokens: Longest answer.
        stop_ids: Token ids that end an answer.
        seed: Seed of the draws.
        score: Whether the mean log-probability is wanted.
    """

    temperature: float
    top_p: float
    max_new_tokens: int
    stop_ids: tuple[int, ...]
    seed: int
    score: bool = False


@dataclass(frozen=True)
class Answer:
    """What a model wrote.

    Attributes:
        ids: Token ids, without the one that ended it.
        finished: Whether it ended by itself.
        log_probability: Mean log-probability of its tokens in nats, at temperature 1, the ending one
            included; None where it was not asked for.
    """

    ids: tuple[int, ...]
    finished: bool
    log_probability: float | None = None


@dataclass(frozen=True)
class Told:
    """How probable given tokens are.

    Attributes:
        log_probabilities: Natural logarithm of each token's probability, at temperature 1.
        likeliest: Whether each token is the model's first choice.
    """

    log_probabilities: tuple[float, ...]
    likeliest: tuple[bool, ...]


class Engine(Protocol):
    """Continues prompts of token ids.

    Attributes:
        name: What the card calls it.
    """

    name: str

    def generate(self, prompts: Sequence[Sequence[int]], sampling: Sampling) -> list[Answer]:
        """Continue every prompt; the same prompts, seed and engine give the same answers."""
        ...

    def tell(self, pairs: Sequence[tuple[Sequence[int], Sequence[int]]]) -> list[Told]:
        """Say how probable each given answer is behind its prompt; a prompt has at least one token."""
        ...

    def close(self) -> None:
        """Free what the engine holds."""
        ...
