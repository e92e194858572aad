"""A stock vLLM server over HTTP: ``/v1/completions`` with token ids both ways."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import asdict
from typing import Any
from urllib.parse import urlsplit

import httpx

from slm_plugin.errors import EngineError
from slm_plugin.vocabulary import UnitVocabulary
from slm_serve.backends.protocol import Delta, ModelCard, SamplingParams, finish_reason
from slm_serve.errors import RequestError
from slm_serve.interleave.constraint import engine_arguments

_LOG = logging.getLogger("slm_serve.engine")
_CONNECT_S = 5.0
# a queued request says nothing until its turn comes
_SILENCE_S = 300.0
# vLLM's server closes a connection that rested for 5 s, maybe while the next request is on its way to it
_REST_S = 2.0


class HttpBackend:
    """Talks to a vLLM OpenAI server.

    Args:
        url: Its address, such as ``http://127.0.0.1:8001``; a trailing ``/v1`` is accepted.
        api_key: Its key, where it has one.
        transport: Replaces the network in tests.
    """

    def __init__(
        self, url: str, api_key: str | None = None, transport: httpx.AsyncBaseTransport | None = None
    ) -> None:
        self._units: tuple[UnitVocabulary, int] | None = None
        self._asking: set[asyncio.Future[httpx.Response]] = set()
        self.url = url.rstrip("/").removesuffix("/v1")
        self._client = httpx.AsyncClient(
            base_url=self.url,
            headers={"authorization": f"Bearer {api_key}"} if api_key else {},
            timeout=httpx.Timeout(_SILENCE_S, connect=_CONNECT_S),
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=64, keepalive_expiry=_REST_S),
            transport=transport,
            # an engine is a neighbour: proxies of the environment are for the outside
            trust_env=False,
        )

    async def models(self) -> list[ModelCard]:
        """Return what the server serves, as its ``/v1/models`` says."""
        try:
            answer = await self._get("/v1/models")
            if answer.status_code != 200:
                raise _refusal(answer.status_code, answer.content)
            return [ModelCard(card["id"], card.get("max_model_len"), card) for card in answer.json()["data"]]
        except (httpx.HTTPError, ValueError, KeyError, TypeError) as error:
            raise self._error("the engine does not list its models", error) from error

    async def generate(self, ids: Sequence[int], params: SamplingParams, model: str) -> AsyncGenerator[Delta, None]:
        """Generate from a prompt of token ids; closing the iterator closes the connection, which aborts."""
        wishes = {key: value for key, value in asdict(params).items() if value is not None}
        wishes.pop("constraint", None)
        if params.constraint is not None and self._units is not None:
            units, end_id = self._units
            wishes["vllm_xargs"] = engine_arguments(params.constraint, units.first_id, units.count, end_id)
        body = {"model": model, "prompt": list(ids), "stream": True, "return_token_ids": True, **wishes}
        try:
            async with aclosing(await self._open(body)) as answer:
                if answer.status_code != 200:
                    raise _refusal(answer.status_code, await answer.aread())
                complete = False
                async for line in answer.aiter_lines():
                    if line.startswith("data: ") and line != "data: [DONE]":
                        for choice in _choices(line):
                            delta = _delta(choice)
                            complete = complete or delta.finish_reason is not None
                            yield delta
                if not complete:
                    # a dead engine's connection may end as quietly as a complete one
                    raise self._error("the engine broke off in the middle of an answer")
        except httpx.HTTPError as error:
            raise self._error("the engine does not answer", error) from error

    def _error(self, what: str, cause: Exception | None = None) -> EngineError:
        """Return the error that a client receives: no address and no words of ours; the log has the address."""
        kind = "" if cause is None else f" ({type(cause).__name__})"
        _LOG.warning("an engine fails", extra={"fields": {"engine": name_of(self.url), "what": f"{what}{kind}"}})
        never_reached = isinstance(cause, httpx.ConnectError | httpx.ConnectTimeout | httpx.PoolTimeout)
        return EngineError(f"{what}{kind}.", reached=not never_reached)

    async def _get(self, path: str) -> httpx.Response:
        """Ask something short; where the caller is cancelled, it is asked to its end all the same.

        Cancelled by a task's own ``cancel()``, httpcore would keep the connection for ever.
        """
        asking = asyncio.ensure_future(self._client.get(path, timeout=_CONNECT_S))
        self._asking.add(asking)
        asking.add_done_callback(self._asked)
        return await asyncio.shield(asking)

    def _asked(self, asking: asyncio.Future[httpx.Response]) -> None:
        self._asking.discard(asking)
        if not asking.cancelled():
            # where nobody waits for it any more, nobody is told of its error
            asking.exception()

    async def _open(self, body: dict[str, Any]) -> httpx.Response:
        """Send a request; again where its connection ended before any answer: the engine had closed it already."""
        request = self._client.build_request("POST", "/v1/completions", json=body)
        try:
            return await self._client.send(request, stream=True)
        except (httpx.ReadError, httpx.WriteError, httpx.RemoteProtocolError):
            return await self._client.send(request, stream=True)

    def constrain(self, units: UnitVocabulary, end_id: int) -> None:
        """Let the server's interleave processor, which it must have, keep to constraints.

        Args:
            units: The model's.
            end_id: The token that ends a turn.
        """
        self._units = (units, end_id)

    async def healthy(self) -> bool:
        """Ask the server's ``/health``."""
        try:
            return (await self._get("/health")).status_code == 200
        except httpx.HTTPError:
            return False

    async def close(self) -> None:
        """Close all connections."""
        await self._client.aclose()


def _choices(line: str) -> list[dict[str, Any]]:
    try:
        data = json.loads(line.removeprefix("data: "))
        if "error" in data:
            # its message is of the engine's inside
            raise EngineError("the engine failed in the middle of an answer.")
        return list(data["choices"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise EngineError("the engine sent something that is not a completion chunk.") from error


def _delta(choice: dict[str, Any]) -> Delta:
    ids = choice.get("token_ids")
    if ids is None and choice.get("text"):
        raise EngineError("the engine returns no token ids; vLLM 0.10.2 or newer is needed.")
    return Delta(ids or [], finish_reason(choice.get("finish_reason")))


def _refusal(status: int, content: bytes) -> EngineError | RequestError:
    """Return the error that an answer other than 200 means: the client's mistakes stay the client's."""
    try:
        message = str(json.loads(content)["error"]["message"])
    except (ValueError, KeyError, TypeError):
        message = content[:200].decode("utf-8", "replace")
    if status in (400, 413, 422):
        return RequestError(message)
    if status == 404:
        return RequestError(message, "model", "model_not_found", 404)
    # 401 and 5xx are between the gateway and its engine
    return EngineError(f"the engine answered with status {status}.")


def name_of(url: str) -> str:
    """Return what an engine is called in logs, metrics and stored answers: host and port, without a password."""
    parts = urlsplit(url)
    if parts.hostname is None:
        return "engine"
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return host if parts.port is None else f"{host}:{parts.port}"
