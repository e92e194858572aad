"""A fake engine that replays scripted ids: for tests, and for work on clients without a model."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field

import anyio

from slm_serve.backends.protocol import Delta, FinishReason, ModelCard, SamplingParams


@dataclass
class Call:
    """One request that the fake engine got, and what became of it.

    Attributes:
        ids: Prompt.
        params: How to generate.
        model: Name asked for.
        sent: Token ids given out so far.
        ended: Set when the iterator has run out or was closed.
    """

    ids: list[int]
    params: SamplingParams
    model: str
    sent: list[int] = field(default_factory=list)
    ended: asyncio.Event = field(default_factory=asyncio.Event)


class FakeBackend:
    """Answers every request with the next script; the last one is used over and over.

    Args:
        scripts: Answers, each a list of deltas of token ids.
        model: Name of the one model it serves.
        context: Context length it claims.
        hang_after: Deltas after which a generation says nothing more until it is closed.
        failure: Error raised after ``fail_after`` deltas.
        fail_after: Deltas before ``failure``.
    """

    def __init__(
        self,
        scripts: Sequence[Sequence[Sequence[int]]],
        model: str = "fake",
        context: int | None = 8192,
        hang_after: int | None = None,
        failure: Exception | None = None,
        fail_after: int = 0,
    ) -> None:
        self.scripts = [list(script) for script in scripts]
        self.model = model
        self.context = context
        self.hang_after = hang_after
        self.failure = failure
        self.fail_after = fail_after
        self.alive = True
        self.calls: list[Call] = []

    async def models(self) -> list[ModelCard]:
        """Return the one model."""
        fields = {"id": self.model, "object": "model", "created": 0, "owned_by": "fake"}
        return [ModelCard(self.model, self.context, fields)]

    async def generate(self, ids: Sequence[int], params: SamplingParams, model: str) -> AsyncGenerator[Delta, None]:
        """Replay a script, cut at ``max_tokens``."""
        call = Call(list(ids), params, model)
        self.calls.append(call)
        script = self.scripts[min(len(self.calls), len(self.scripts)) - 1]
        try:
            for position, piece in enumerate(script):
                if self.failure is not None and position == self.fail_after:
                    raise self.failure
                if position == self.hang_after:
                    await asyncio.Event().wait()
                sent = list(piece[: params.max_tokens - len(call.sent)])
                call.sent += sent
                reason: FinishReason | None = "stop" if position == len(script) - 1 else None
                if len(sent) < len(piece) or (reason is None and len(call.sent) == params.max_tokens):
                    reason = "length"
                yield Delta(sent, reason)
                if reason:
                    # complete: there is nothing left that a cancellation could leave at work
                    call.ended.set()
                    return
                # a real engine always gives the loop a turn between deltas
                await asyncio.sleep(0)
        finally:
            # closing a connection takes turns of the loop, in which a second cancellation could strike; as in
            # httpcore, the scope around an answer does not reach here
            with anyio.CancelScope(shield=True):
                for _ in range(3):
                    await asyncio.sleep(0)
            call.ended.set()

    async def healthy(self) -> bool:
        """Tell whether the test has it alive."""
        return self.alive

    async def close(self) -> None:
        """Do nothing: there is nothing to let go of."""
