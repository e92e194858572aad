"""What every route shares: the model's tokenizer and units, the codec, the engine and the history."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from slm_plugin.errors import EngineError, VocabularyError
from slm_plugin.speech.protocol import Codec, VoicedCodec
from slm_plugin.vocabulary import UnitVocabulary
from slm_serve.backends.protocol import Backend, ModelCard
from slm_serve.background import Background
from slm_serve.errors import RequestError
from slm_serve.health import HealthCheck
from slm_serve.history import History
from slm_serve.ops.limits import Limits
from slm_serve.ops.metrics import Metrics
from slm_serve.ops.tracing import Tracing
from slm_serve.prompt import PromptBuilder, Turn
from slm_serve.voice import OPENAI_VOICES
from slm_serve.workers.encoder import EncoderWorker
from slm_serve.workers.vocoder import VocoderWorker
from slm_serve.workers.voice_activity import VoiceActivityWorker

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_SHORTEST_ANSWER = 16
"""Tokens that an answer needs at least to say anything."""

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
        workers: Threads that listen, and threads that speak.
        history: Earlier spoken answers.
        limits: Bounds of recordings and answers.
        tracing: Where traces go.

    Attributes:
        encoder: Turns recordings into units.
        vocoder: Turns units into sound.
        voice_activity: Tells speech from silence.
        health: Checks engine and vocoder, once for everybody.
        background: What runs for as long as the server does.
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
        limits: Limits | None = None,
        tracing: Tracing | None = None,
    ) -> None:
        self.tokenizer = tokenizer
        self.vocabulary = vocabulary
        self.codec = codec
        self.codec_name = codec_name
        self.backend = backend
        self.prompts = PromptBuilder(tokenizer, vocabulary)
        self.history = history or History()
        self.limits = limits or Limits()
        self.metrics = Metrics()
        self.tracing = tracing or Tracing()
        self.encoder = EncoderWorker(codec, workers, limits=self.limits)
        self.vocoder = VocoderWorker(codec, workers)
        self.voice_activity = VoiceActivityWorker()
        self.health = HealthCheck(backend, codec)
        self.background = Background(self.metrics)
        # parsing and prompts have threads of their own, so that text never waits behind sound
        self._pool = ThreadPoolExecutor(2, thread_name_prefix="slm-text")
        self._cards: dict[str, ModelCard] = {}

    @property
    def end_id(self) -> int:
        """The token that ends a turn."""
        end_id = self.tokenizer.eos_token_id
        assert isinstance(end_id, int), "the tokenizer has no end token"
        return end_id

    async def in_worker(self, call: Callable[Given, Result], *args: Given.args, **kwargs: Given.kwargs) -> Result:
        """Run a short blocking call in a worker thread; speech has its own, ``encoder`` and ``vocoder``."""
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

    @property
    def voices(self) -> tuple[str, ...]:
        """Names that a request may choose a voice by: OpenAI's, which are the codec's default, and its own."""
        own = self.codec.voices if isinstance(self.codec, VoicedCodec) else ()
        return (*OPENAI_VOICES, *own)

    def voice(self, asked: str, param: str) -> str | None:
        """Return the codec's voice that a request asks for; None for its default.

        Args:
            asked: Name in the request.
            param: Where the request names it, for messages.

        Raises:
            RequestError: There is no such voice.
        """
        if asked in OPENAI_VOICES:
            return None
        if isinstance(self.codec, VoicedCodec) and self.codec.has_voice(asked):
            return asked
        what = "all but OpenAI's names are the codec's" if len(self.voices) > len(OPENAI_VOICES) else "all the same"
        text = f"there is no voice {asked!r}. Voices ({what}): {', '.join(self.voices)}."
        raise RequestError(text, param, "invalid_value")

    async def check(self) -> None:
        """Check that a request would be answered.

        Raises:
            EngineError: The store of spoken answers is away, or the engine's context is too short for a conversation.
        """
        await self.history.check()
        needed = len(self.prompts.build([Turn("user", ("a",))])) + _SHORTEST_ANSWER
        for card in await self.backend.models():
            if card.context is not None and card.context < needed:
                raise EngineError(
                    f"the context of {card.id} is {card.context} tokens, and the shortest conversation with its answer"
                    f" needs {needed}: raise vLLM's --max-model-len."
                )

    async def close(self) -> None:
        """Release the engine and the threads."""
        await self.background.stop()
        self.health.close()
        await self.backend.close()
        await self.history.close()
        await self.encoder.close()
        await self.vocoder.close()
        await self.voice_activity.close()
        self._pool.shutdown(wait=True, cancel_futures=True)
