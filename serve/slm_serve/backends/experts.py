"""Experts by name: what a client calls ``model`` becomes the version that the engine holds now."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import replace

from slm_serve.backends.protocol import Backend, Delta, ModelCard, SamplingParams

SEPARATOR = "@"
"""Between an expert's name and its version in the engine; names of experts hold none."""


class ExpertBackend:
    """Lets answers that have begun end on the version they began with.

    Args:
        backend: The engine, which knows versions only.
    """

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._versions: dict[str, str] = {}
        self._running: Counter[str] = Counter()

    def offer(self, name: str, version: str) -> None:
        """Answer requests for an expert by a version that the engine holds."""
        self._versions[name] = version

    def withdraw(self, name: str) -> None:
        """Answer no further requests for an expert."""
        self._versions.pop(name, None)

    def running(self, version: str) -> int:
        """Return how many answers a version makes now."""
        return self._running[version]

    async def models(self) -> list[ModelCard]:
        """Return the engine's models, with each expert under its own name."""
        names = {version: name for name, version in self._versions.items()}
        cards: list[ModelCard] = []
        for card in await self._backend.models():
            if card.id in names:
                name = names[card.id]
                cards.append(replace(card, id=name, fields={**card.fields, "id": name, "root": name}))
            elif SEPARATOR not in card.id:
                cards.append(card)
        context = next((card.context for card in cards if card.context is not None), None)
        return [card if card.context is not None else replace(card, context=context) for card in cards]

    async def generate(self, ids: Sequence[int], params: SamplingParams, model: str) -> AsyncGenerator[Delta, None]:
        """Generate with the version that an expert has now."""
        version = self._versions.get(model, model)
        self._running[version] += 1
        try:
            async with aclosing(self._backend.generate(ids, params, version)) as deltas:
                async for delta in deltas:
                    yield delta
        finally:
            self._running[version] -= 1

    async def healthy(self) -> bool:
        """Tell whether the engine would answer now."""
        return await self._backend.healthy()

    async def close(self) -> None:
        """Let go of the engine."""
        await self._backend.close()
