"""The engine of the vLLM server that this process is: token ids both ways, without HTTP between."""

from __future__ import annotations

import secrets
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import asdict
from typing import Any, Protocol

from vllm.inputs import tokens_input
from vllm.sampling_params import RequestOutputKind
from vllm.sampling_params import SamplingParams as VllmParams
from vllm.v1.engine.exceptions import EngineDeadError, EngineGenerateError

from slm_plugin.errors import EngineError
from slm_plugin.vocabulary import UnitVocabulary
from slm_serve.backends.protocol import Delta, ModelCard, SamplingParams, finish_reason
from slm_serve.backends.pulse import Pulse
from slm_serve.context import current
from slm_serve.errors import RequestError
from slm_serve.interleave.constraint import engine_arguments


class EngineClient(Protocol):
    """What is used of vLLM's ``EngineClient``."""

    model_config: Any

    def generate(
        self, prompt: Any, sampling_params: VllmParams, request_id: str, *, lora_request: Any = None
    ) -> AsyncGenerator[Any, None]:
        """Generate; closing the iterator aborts the request."""
        ...

    async def check_health(self) -> None:
        """Raise ``EngineDeadError`` where the engine has ended."""
        ...


class Served(Protocol):
    """What is used of vLLM's ``OpenAIServingModels``."""

    lora_requests: Mapping[str, Any]

    async def show_available_models(self) -> Any:
        """Return the list that vLLM's own ``/v1/models`` shows."""
        ...

    def is_base_model(self, model_name: str) -> bool:
        """Tell whether a name is one of the model's own."""
        ...


class InProcessBackend:
    """Talks to the engine as vLLM's own routes do.

    Args:
        client: vLLM's client of its engine.
        served: The names that vLLM serves, adapters of its ``--lora-modules`` among them.
    """

    def __init__(self, client: EngineClient, served: Served) -> None:
        self._client = client
        self._served = served
        self._units: tuple[UnitVocabulary, int] | None = None
        self._pulse = Pulse(self.healthy)
        # what the model's generation configuration says, as for vLLM's own routes
        self._defaults: dict[str, Any] = client.model_config.get_diff_sampling_param()

    async def models(self) -> list[ModelCard]:
        """Return what vLLM serves; an adapter has the context of its base."""
        if not await self.healthy():
            raise EngineError("the engine has ended.")
        context: int = self._client.model_config.max_model_len
        cards = (await self._served.show_available_models()).data
        return [ModelCard(card.id, card.max_model_len or context, card.model_dump()) for card in cards]

    async def generate(self, ids: Sequence[int], params: SamplingParams, model: str) -> AsyncGenerator[Delta, None]:
        """Generate from a prompt of token ids; closing the iterator aborts the request in the engine."""
        # one request of a client, such as a realtime session, may ask for several answers
        request_id = f"{current().id}-{secrets.token_hex(4)}"
        adapter = self._adapter(model)
        try:
            outputs = self._client.generate(
                tokens_input(list(ids)), self._sampling(params), request_id, lora_request=adapter
            )
            complete = False
            async with self._pulse.work(), aclosing(outputs):
                while True:
                    async with self._pulse.wait():
                        output = await anext(outputs, None)
                    if output is None:
                        break
                    (choice,) = output.outputs
                    delta = Delta(choice.token_ids, finish_reason(choice.finish_reason))
                    complete = complete or delta.finish_reason is not None
                    yield delta
        except EngineDeadError as error:
            raise EngineError("the engine has ended.") from error
        except EngineGenerateError as error:
            raise EngineError("the engine failed; vLLM's log has the details.") from error
        except ValueError as error:
            raise RequestError(str(error)) from error
        if not complete:
            raise EngineError("the engine broke off in the middle of an answer.")

    def constrain(self, units: UnitVocabulary, end_id: int) -> None:
        """Let the engine's interleave processor, which it must have, keep to constraints.

        Args:
            units: The model's.
            end_id: The token that ends a turn.
        """
        self._units = (units, end_id)

    async def healthy(self) -> bool:
        """Ask vLLM whether its engine runs."""
        try:
            await self._client.check_health()
        except EngineDeadError:
            return False
        return True

    async def close(self) -> None:
        """Do nothing: the engine is vLLM's to end."""

    def _adapter(self, model: str) -> Any:
        if self._served.is_base_model(model):
            return None
        if model not in self._served.lora_requests:
            # unloaded since its card was shown
            raise RequestError(f"there is no model {model!r}.", "model", "model_not_found", 404)
        return self._served.lora_requests[model]

    def _sampling(self, params: SamplingParams) -> VllmParams:
        wishes = {name: value for name, value in asdict(params).items() if value is not None and name != "constraint"}
        wishes["stop_token_ids"] = list(params.stop_token_ids)
        if params.constraint is not None and self._units is not None:
            units, end_id = self._units
            wishes["extra_args"] = engine_arguments(params.constraint, units.first_id, units.count, end_id)
        return VllmParams(**{**self._defaults, **wishes}, detokenize=False, output_kind=RequestOutputKind.DELTA)
