"""What every route shares: the model's tokenizer and units, the codec, the engine and the history."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from slm_plugin.errors import VocabularyError
from slm_plugin.speech.protocol import Codec
from slm_plugin.vocabulary import UnitVocabulary
from slm_serve.backends.protocol import Backend, ModelCard
from slm_serve.errors import RequestError
from slm_serve.history import History
from slm_serve.prompt import PromptBuilder

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Given = ParamSpec("Given")
Result = TypeVar("Result")


def bind_units(tokenizer: PreTrainedTokenizerBase, codec: Codec, model: str, codec_name: str) -> UnitVocabulary:
    """Return the model's units, which must be the codec's.

    Args:
        tokenizer: The model's tokenizer.
        codec: Makes and speaks the units.
        model: Where the model lies, for messages.
        codec_name: What the codec was asked for as, for messages.

    Raises:
        VocabularyError: The model has no units, or another number than the codec.
    """
    vocabulary = UnitVocabulary.find(tokenizer)
    if vocabulary is None:
        raise VocabularyError(
            f"the model in {model} has no unit tokens; serve one that was exported from a run with slm.units."
        )
    if vocabulary.count != codec.n_units:
        raise VocabularyError(
            f"the model in {model} has {vocabulary.count} units, the codec {codec_name} has {codec.n_units};"
            " serve the model with the codec that its training units came from."
        )
    return vocabulary


class Service:
    """Holds what requests need; made once per server.

    Args:
        tokenizer: A fast tokenizer with a chat template.
        vocabulary: Its units.
        codec: Makes and speaks the units.
        backend: The text engine.
        codec_name: What the codec is called in ``/v1/models``.
        workers: Threads that encode and speak.
        history: Earlier spoken answers.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        vocabulary: UnitVocabulary,
        codec: Codec,
        backend: Backend,
        codec_name: str = "codec",
        workers: int = 2,
        history: History | None = None,
    ) -> None:
        self.tokenizer = tokenizer
        self.vocabulary = vocabulary
        self.codec = codec
        self.codec_name = codec_name
        self.backend = backend
        self.prompts = PromptBuilder(tokenizer, vocabulary)
        self.history = history or History()
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="slm-speech")
        self._cards: dict[str, ModelCard] = {}

    @property
    def end_id(self) -> int:
        """The token that ends a turn."""
        end_id = self.tokenizer.eos_token_id
        assert isinstance(end_id, int), "the tokenizer has no end token"
        return end_id

    async def in_worker(self, call: Callable[Given, Result], *args: Given.args, **kwargs: Given.kwargs) -> Result:
        """Run a blocking call in a worker thread."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._pool, lambda: call(*args, **kwargs))

    async def card(self, model: str) -> ModelCard:
        """Return the engine's card of a model; cards are kept, for they do not change.

        Raises:
            RequestError: The engine has no such model (404).
            EngineError: The engine is away.
        """
        if model not in self._cards:
            self._cards = {card.id: card for card in await self.backend.models()}
        if model not in self._cards:
            known = ", ".join(self._cards)
            text = f"there is no model {model!r}. Models: {known}."
            raise RequestError(text, "model", "model_not_found", 404)
        return self._cards[model]

    async def close(self) -> None:
        """Let go of the engine and the threads."""
        await self.backend.close()
        self._pool.shutdown(wait=True, cancel_futures=True)
