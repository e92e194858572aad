"""Several engines behind one: the least busy answers, conversations go on where they began, the dead are left out."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field

from slm_plugin.errors import EngineError
from slm_serve.backends.protocol import Backend, Delta, ModelCard, SamplingParams
from slm_serve.context import current

REST_S = 5.0
"""Seconds in which an engine that failed is asked only when all others have failed too."""
SLACK = 4
"""Answers that an engine may be busier than the least busy one and still keep its conversations."""

MOST_REACHED = 2
"""Engines that one request may be the end of."""


@dataclass
class Replica:
    """One engine.

    Attributes:
        name: What logs, metrics and stored answers call it.
        backend: The engine.
        running: Answers that it makes now.
        rests_until: Monotonic time in seconds until which it is left alone.
        last: When it was chosen last, as a count; the longest unused goes first among equals.
        models: Names that it serves, as far as known.
    """

    name: str
    backend: Backend
    running: int = 0
    rests_until: float = 0.0
    last: int = 0
    models: frozenset[str] = field(default_factory=frozenset)


class Replicas:
    """Chooses an engine for each answer.

    An answer goes to the engine that made the spoken answer its request refers to, whose cache knows the
    conversation, unless that is :data:`SLACK` answers busier than the least busy one; else to the least busy one.
    An engine that fails before its first token is replaced by the next without the client noticing. A request that
    :data:`MOST_REACHED` engines have taken and failed at goes to no further one: it may be what ends them.

    Args:
        backends: The engines by name.
        clock: Monotonic time in seconds.
    """

    def __init__(self, backends: Mapping[str, Backend], clock: Callable[[], float] = time.monotonic) -> None:
        assert backends, "replicas need an engine"
        self.members = [Replica(name, backend) for name, backend in backends.items()]
        self._clock = clock
        self._chosen = 0

    async def models(self) -> list[ModelCard]:
        """Return what any engine serves.

        Raises:
            EngineError: All engines are away.
        """
        found = await asyncio.gather(*(m.backend.models() for m in self.members), return_exceptions=True)
        cards: dict[str, ModelCard] = {}
        for member, answer in zip(self.members, found, strict=True):
            if isinstance(answer, EngineError):
                self._rest(member)
            elif isinstance(answer, BaseException):
                raise answer
            else:
                member.models = frozenset(card.id for card in answer)
                cards = {**{card.id: card for card in answer}, **cards}
        if not cards:
            raise EngineError("none of the engines answers.")
        return list(cards.values())

    async def generate(self, ids: Sequence[int], params: SamplingParams, model: str) -> AsyncGenerator[Delta, None]:
        """Generate on one of the engines; closing the iterator ends the work there."""
        tried: list[Replica] = []
        n_reached = 0
        while True:
            member = self._choose(model, tried)
            tried.append(member)
            current().replica = member.name
            member.running += 1
            begun = False
            try:
                async with aclosing(member.backend.generate(ids, params, model)) as deltas:
                    async for delta in deltas:
                        begun = True
                        yield delta
                return
            except EngineError as error:
                self._rest(member)
                n_reached += error.reached
                if begun or n_reached == MOST_REACHED or len(tried) == len(self.members):
                    raise
            finally:
                member.running -= 1

    async def healthy(self) -> bool:
        """Tell whether an engine would answer now."""
        return any(await asyncio.gather(*(member.backend.healthy() for member in self.members)))

    async def close(self) -> None:
        """Let go of all engines."""
        await asyncio.gather(*(member.backend.close() for member in self.members))

    def _rest(self, member: Replica) -> None:
        member.rests_until = self._clock() + REST_S

    def _choose(self, model: str, tried: Sequence[Replica]) -> Replica:
        left = [member for member in self.members if member not in tried]
        serving = [member for member in left if model in member.models] or left
        awake = [member for member in serving if member.rests_until <= self._clock()] or serving
        best = min(awake, key=lambda member: (member.running, member.last))
        known = next((member for member in awake if member.name == current().replica), None)
        if known is not None and known.running < best.running + SLACK:
            best = known
        self._chosen += 1
        best.last = self._chosen
        return best
