"""What a text engine must answer."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, Protocol

from slm_plugin.errors import EngineError
from slm_serve.interleave.constraint import Constraint

FinishReason = Literal["stop", "length"]


_FINISH: dict[str | None, FinishReason | None] = {None: None, "stop": "stop", "length": "length"}


def finish_reason(said: str | None) -> FinishReason | None:
    """Return why a generation ended in our words; None while it goes on.

    Args:
        said: vLLM's word for it.

    Raises:
        EngineError: It ended for a reason of the engine's own, such as ``abort``.
    """
    if said not in _FINISH:
        raise EngineError(f"the engine ended the generation with {said!r}.")
    return _FINISH[said]


class Delta(NamedTuple):
    """A piece of a generation.

    Attributes:
        ids: Further token ids, in order; an end-of-turn token may be the last.
        finish_reason: Set on the last piece.
    """

    ids: Sequence[int]
    finish_reason: FinishReason | None = None


@dataclass(frozen=True)
class SamplingParams:
    """How to generate; None leaves the choice to the model's own generation configuration.

    Attributes:
        max_tokens: Most tokens to generate.
        temperature: 0 is greedy.
        top_p: Nucleus probability.
        top_k: Candidates per token.
        seed: Seed of this request alone.
        frequency_penalty: OpenAI's penalty by count.
        presence_penalty: OpenAI's penalty by presence.
        ignore_eos: Whether to go on to ``max_tokens`` past any end of turn.
        stop_token_ids: Tokens that end the generation, beside the model's own.
        constraint: Which kinds of token may come; engines that cannot keep to it may pass it over.
    """

    max_tokens: int
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    seed: int | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    ignore_eos: bool = False
    stop_token_ids: tuple[int, ...] = ()
    constraint: Constraint | None = None


@dataclass(frozen=True)
class ModelCard:
    """A model that the engine serves.

    Attributes:
        id: Name that requests use.
        context: Most tokens of prompt and answer together; None where the engine does not say.
        fields: The engine's own description, shown by ``/v1/models``.
    """

    id: str
    context: int | None = None
    fields: dict[str, Any] = field(default_factory=dict)


class Backend(Protocol):
    """A text engine."""

    async def models(self) -> list[ModelCard]:
        """Return what the engine serves.

        Raises:
            EngineError: The engine is away.
        """
        ...

    def generate(self, ids: Sequence[int], params: SamplingParams, model: str) -> AsyncGenerator[Delta, None]:
        """Generate from a prompt of token ids; closing the iterator ends the work in the engine.

        An iterator may be closed in an anyio scope that is cancelled already: what it has to wait for then, it
        waits for in a shielded scope.

        Raises:
            EngineError: The engine is away, or failed.
            RequestError: The engine refuses the request.
        """
        ...

    async def healthy(self) -> bool:
        """Tell whether the engine would answer now."""
        ...

    async def close(self) -> None:
        """Let go of connections; the backend is used up afterwards."""
        ...
