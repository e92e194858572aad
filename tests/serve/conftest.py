"""A gateway over a fake engine and a fake codec, driven by the real ``openai`` client."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import httpx
import pytest
from openai import AsyncOpenAI

from slm_plugin.vocabulary import UnitVocabulary
from slm_serve.app import create_app
from slm_serve.backends.fake import FakeBackend
from slm_serve.fakes import FakeCodec
from slm_serve.ops.settings import Settings
from slm_serve.service import Service
from tiny_models import make_tokenizer

UNITS = 50


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def tokenizer() -> Any:
    return make_tokenizer(UNITS)


@pytest.fixture(scope="session")
def vocabulary(tokenizer: Any) -> UnitVocabulary:
    found = UnitVocabulary.find(tokenizer)
    assert found is not None
    return found


@pytest.fixture(scope="session")
def codec() -> FakeCodec:
    return FakeCodec(UNITS)


@pytest.fixture(scope="session")
def write(tokenizer: Any) -> Callable[[str], list[int]]:
    """Token ids of a text in which units are written as tokens, as a model would generate them."""
    return lambda text: tokenizer(text, add_special_tokens=False)["input_ids"]


Script = str | Sequence[str]


class Gateway:
    """A gateway in this process.

    Attributes:
        backend: The fake engine; ``backend.calls`` is what reached it.
        client: The real client.
        http: A plain HTTP client.
        service: What the routes share.
    """

    def __init__(self, service: Service, backend: FakeBackend, http: httpx.AsyncClient) -> None:
        self.service = service
        self.backend = backend
        self.http = http
        self.client = AsyncOpenAI(base_url="http://localhost/v1", api_key="any", http_client=http, max_retries=0)

    async def post(self, **body: Any) -> httpx.Response:
        """Ask for a chat completion without the client's help."""
        defaults = {"model": "fake", "messages": [{"role": "user", "content": "hello"}]}
        return await self.http.post("/v1/chat/completions", json={**defaults, **body})


Open = Callable[..., AbstractAsyncContextManager[Gateway]]


@pytest.fixture
def gateway(tokenizer: Any, vocabulary: UnitVocabulary, codec: FakeCodec, write: Any) -> Open:
    """Open a gateway whose engine answers with scripts: a text, or its deltas."""

    @asynccontextmanager
    async def opened(
        *scripts: Script, keys: Sequence[str] = (), settings: Settings | None = None, **options: Any
    ) -> AsyncIterator[Gateway]:
        pieces = [[[token] for token in write(s)] if isinstance(s, str) else [write(d) for d in s] for s in scripts]
        backend = FakeBackend(pieces or [[[tokenizer.eos_token_id]]], **options)
        settings = settings or Settings()
        service = Service(tokenizer, vocabulary, codec, backend, "fake-codec", limits=settings.limits)
        transport = httpx.ASGITransport(create_app(service, keys, settings), raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as http:
            yield Gateway(service, backend, http)
        await service.close()

    return opened
