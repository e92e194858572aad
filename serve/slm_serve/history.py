"""Spoken answers by id, so that a later request can put one back into the conversation exactly."""

from __future__ import annotations

import time
import uuid
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from slm_serve.errors import RequestError

LIFETIME_S = 3600
CAPACITY = 1000


@dataclass(frozen=True)
class Ticket:
    """What a client may refer to an answer by.

    Attributes:
        id: Such as ``audio_5f0c...``.
        expires_at: Unix time in seconds from which on the answer is forgotten.
    """

    id: str
    expires_at: int


class History:
    """Keeps the generated ids of the latest spoken answers for an hour.

    Args:
        capacity: Most answers kept; the oldest goes first.
        lifetime_s: Seconds an answer is kept.
        clock: Gives Unix time in seconds.
    """

    def __init__(
        self, capacity: int = CAPACITY, lifetime_s: int = LIFETIME_S, clock: Callable[[], float] = time.time
    ) -> None:
        self._capacity = capacity
        self._lifetime_s = lifetime_s
        self._clock = clock
        self._answers: OrderedDict[str, tuple[int, tuple[int, ...]]] = OrderedDict()

    def issue(self) -> Ticket:
        """Return a ticket for an answer that is about to be generated."""
        return Ticket(f"audio_{uuid.uuid4().hex}", int(self._clock()) + self._lifetime_s)

    def remember(self, ticket: Ticket, ids: Sequence[int]) -> None:
        """Keep the ids of an answer under its ticket."""
        self._answers[ticket.id] = (ticket.expires_at, tuple(ids))
        while len(self._answers) > self._capacity:
            self._answers.popitem(last=False)

    def recall(self, audio_id: str, param: str) -> tuple[int, ...]:
        """Return the ids of an answer.

        Args:
            audio_id: The ticket's id.
            param: Where the request names it, for the message.

        Raises:
            RequestError: There is no such answer, or no longer.
        """
        expires_at, ids = self._answers.get(audio_id, (0, ()))
        if expires_at <= self._clock():
            self._answers.pop(audio_id, None)
            raise RequestError(f"no spoken answer has the id {audio_id!r}, or it has expired.", param)
        return ids
