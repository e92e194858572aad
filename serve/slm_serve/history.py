"""Spoken answers by id, so that a later request can put one back into the conversation exactly."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from slm_plugin.errors import EngineError
from slm_serve.context import current
from slm_serve.errors import RequestError
from slm_serve.ops.store import CAPACITY, MemoryStore, Record, Store

LIFETIME_S = 3600
EXPIRY_S = 60.0
"""Seconds between two deletions of what has expired."""

_AWAY = "the store of spoken answers does not answer."
_LOG = logging.getLogger("slm_serve.history")


@dataclass(frozen=True)
class Ticket:
    """What a client may refer to an answer by.

    Attributes:
        id: Such as ``audio_5f0c...``, of 128 random bits.
        expires_at: Unix time in seconds from which on the answer is forgotten.
    """

    id: str
    expires_at: int


class History:
    """Keeps the generated ids of the latest spoken answers for an hour, each for the key that asked for it.

    Args:
        capacity: Most answers kept where no store is given; the oldest goes first.
        lifetime_s: Seconds an answer is kept.
        clock: Gives Unix time in seconds.
        store: Where they are kept; in this process by default.
    """

    def __init__(
        self,
        capacity: int = CAPACITY,
        lifetime_s: int = LIFETIME_S,
        clock: Callable[[], float] = time.time,
        store: Store | None = None,
    ) -> None:
        self._store = store or MemoryStore(capacity)
        self._lifetime_s = lifetime_s
        self._clock = clock

    async def issue(self) -> Ticket:
        """Return a ticket for an answer that is about to be generated.

        Raises:
            EngineError: The store is away, so the id would belong to nothing.
        """
        await self.check()
        return Ticket(f"audio_{secrets.token_hex(16)}", int(self._clock()) + self._lifetime_s)

    async def remember(self, ticket: Ticket, ids: Sequence[int]) -> None:
        """Keep the ids of an answer under its ticket.

        Raises:
            EngineError: The store is away.
        """
        request = current()
        try:
            record = Record(request.owner, ticket.expires_at, tuple(ids), request.replica)
            await self._store.put(ticket.id, record)
        except Exception as error:
            _LOG.exception("a spoken answer could not be kept")
            raise EngineError(_AWAY) from error

    async def check(self) -> None:
        """Check that answers can be kept.

        Raises:
            EngineError: The store is away.
        """
        try:
            await self._store.check()
        except Exception as error:
            _LOG.exception("the store of spoken answers is away")
            raise EngineError(_AWAY) from error

    async def expire(self) -> None:
        """Delete what has expired once a minute, for ever."""
        while True:
            await asyncio.sleep(EXPIRY_S)
            await self._store.purge()

    async def recall(self, audio_id: str, param: str) -> tuple[int, ...]:
        """Return the ids of an answer; the engine that made it will be asked first.

        Args:
            audio_id: The ticket's id.
            param: Where the request names it, for the message.

        Raises:
            RequestError: There is no such answer, or no longer, or it is another key's: all in the same words.
            EngineError: The store is away.
        """
        try:
            record = await self._store.get(audio_id)
        except Exception as error:
            _LOG.exception("the store of spoken answers is away")
            raise EngineError(_AWAY) from error
        request = current()
        if record is None or record.expires_at <= self._clock() or record.owner != request.owner:
            raise RequestError(f"no spoken answer has the id {audio_id!r}, or it has expired.", param)
        request.replica = record.replica
        return record.ids

    async def close(self) -> None:
        """Let go of the store."""
        await self._store.close()
