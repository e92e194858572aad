"""A fake of vLLM's client of its engine, and of its list of served names: as much as our routes use of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from types import SimpleNamespace
from typing import Any

from vllm.entrypoints.openai.engine.protocol import ModelCard, ModelList
from vllm.entrypoints.openai.models.protocol import BaseModelPath
from vllm.entrypoints.openai.models.serving import OpenAIModelRegistry
from vllm.lora.request import LoRARequest
from vllm.outputs import CompletionOutput, RequestOutput
from vllm.v1.engine.exceptions import EngineDeadError


class FakeEngineClient:
    """Answers every request with one script, in vLLM's own classes.

    Args:
        script: Deltas of token ids.
        reason: What vLLM calls the end of the last one; None calls it nothing.
        hangs: Whether the last one never comes, not even when the engine has ended.
        failure: Raised in place of that end.
        defaults: The model's generation configuration.
        processors: Of the model's configuration.

    Attributes:
        requests: What was asked for.
        aborted: Requests that were closed before their end.
        alive: Whether the engine runs.
    """

    def __init__(
        self,
        script: Sequence[Sequence[int]] = ((7,),),
        reason: str | None = "stop",
        failure: Exception | None = None,
        hangs: bool = False,
        defaults: dict[str, Any] | None = None,
        processors: list[str] | None = None,
    ) -> None:
        self.script = script
        self.reason = reason
        self.failure = failure
        self.hangs = hangs
        self.alive = True
        self.requests: list[SimpleNamespace] = []
        self.aborted: list[str] = []
        self.model_config = SimpleNamespace(
            max_model_len=77,
            tokenizer="runs/model",
            logits_processors=processors,
            get_diff_sampling_param=lambda: dict(defaults or {}),
        )

    async def generate(
        self, prompt: Any, sampling_params: Any, request_id: str, *, lora_request: Any = None
    ) -> AsyncGenerator[RequestOutput, None]:
        self.requests.append(
            SimpleNamespace(prompt=prompt, params=sampling_params, id=request_id, adapter=lora_request)
        )
        if not self.alive:
            raise EngineDeadError
        try:
            for position, ids in enumerate(self.script):
                is_last = position == len(self.script) - 1
                if is_last and self.hangs:
                    await asyncio.Event().wait()
                if is_last and self.failure is not None:
                    raise self.failure
                reason = self.reason if is_last else None
                choice = CompletionOutput(0, "", list(ids), None, None, finish_reason=reason)
                yield RequestOutput(request_id, None, None, None, [choice], is_last)
        except (asyncio.CancelledError, GeneratorExit):
            self.aborted.append(request_id)
            raise

    async def check_health(self) -> None:
        if not self.alive:
            raise EngineDeadError


class FakeServed(OpenAIModelRegistry):
    """A model called ``m`` with an adapter called ``expert``."""

    def __init__(self, client: FakeEngineClient) -> None:
        super().__init__(client.model_config, [BaseModelPath("m", "runs/model")])
        self.lora_requests = {"expert": LoRARequest("expert", 1, "runs/expert")}

    async def show_available_models(self) -> ModelList:
        listed = await super().show_available_models()
        # as vLLM shows adapters: without a context
        listed.data += [ModelCard(id=name, root=lora.path, parent="m") for name, lora in self.lora_requests.items()]
        return listed
