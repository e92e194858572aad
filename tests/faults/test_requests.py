"""Requests made at random from the OpenAPI document, valid and invalid: never a 500, nothing kept."""

from __future__ import annotations

import asyncio
import gc
import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import content_type_conformance, status_code_conformance

from serve.sounds import recording
from slm_plugin.vocabulary import UnitVocabulary
from slm_serve.app import create_app
from slm_serve.backends.fake import FakeBackend
from slm_serve.fakes import FakeCodec
from slm_serve.ops.settings import Settings
from slm_serve.protocol import ChatRequest
from slm_serve.service import Service
from tiny_models import make_tokenizer

pytestmark = pytest.mark.anyio

SHORT, LONG = 150, 10_000
PROFILE = {
    "deadline": None,
    "database": None,
    "phases": (Phase.explicit, Phase.generate),
    "suppress_health_check": list(HealthCheck),
}


@asynccontextmanager
async def stays_open(_: Any) -> AsyncIterator[None]:
    """Stand in for the lifespan: the test client runs it for each request."""
    yield


@pytest.fixture(scope="module")
def app() -> Any:
    """An application whose engine says something short and spoken to everybody."""
    tokenizer = make_tokenizer(50)
    ids = tokenizer("what\n\nyes\n\nyes<|3|><|4|><|eot_id|>", add_special_tokens=False)["input_ids"]
    vocabulary = UnitVocabulary.find(tokenizer)
    assert vocabulary is not None
    backend = FakeBackend([[[token] for token in ids]])
    app = create_app(
        Service(tokenizer, vocabulary, FakeCodec(50), backend), settings=Settings(allowed_hosts=["testserver"])
    )
    app.router.lifespan_context = stays_open
    return app


@pytest.fixture(scope="module")
def document(app: Any) -> Any:
    """Its OpenAPI document."""
    return schemathesis.openapi.from_asgi("/openapi.json", app)


def open_files() -> int:
    """Return the number of open files of this process."""
    return len(list(Path(f"/proc/{os.getpid()}/fd").iterdir()))


def ask(case: Any) -> None:
    """Send a case; refuse a failure of the server, and an answer that the document does not know."""
    case.call_and_validate(checks=[not_a_server_error, status_code_conformance, content_type_conformance])


def send(operation: Any, number: int) -> None:
    """Send so many cases of an operation."""

    @settings(max_examples=number, **PROFILE)
    @given(case=operation.as_strategy())
    def run(case):
        ask(case)

    run()


def test_requests_by_the_document_are_answered_or_refused(document):
    operations = [result.ok() for result in document.get_all_operations()]
    assert len(operations) >= 5
    for operation in operations:
        send(operation, SHORT // 5)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_ten_thousand_requests_leave_nothing_behind(app, document):
    operations = [result.ok() for result in document.get_all_operations()]
    share = LONG // len(operations)

    for operation in operations:
        send(operation, 100)
    files = open_files()
    for operation in operations:
        send(operation, share)
    assert open_files() <= files + 2
    assert b"slm_running 0.0" in app.state.service.metrics.page()


@pytest.mark.slow
async def test_ten_thousand_requests_of_every_kind_leave_the_memory_flat(app):
    """Without hypothesis, which keeps memory of its own."""
    spoken = {"modalities": ["text", "audio"], "audio": {"voice": "alloy", "format": "wav"}}
    recorded = [{"type": "input_audio", "input_audio": {"data": SPOKEN, "format": "wav"}}]
    bodies = [
        {"messages": [{"role": "user", "content": "hello"}], **spoken},
        {"messages": [{"role": "user", "content": recorded}], "stream": True},
        {"messages": [{"role": "user", "content": "hello"}], "temperature": 9},
        {"unknown": 1},
    ]
    sizes = []
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as http:
        for _ in range(8):
            for number in range(LONG // 8):
                await http.post("/v1/chat/completions", json={"model": "fake", **bodies[number % 4]})
            # the fake's own notes
            app.state.service.backend.calls.clear()
            gc.collect()
            sizes.append(psutil.Process().memory_info().rss)
    # the store of spoken answers is full after the third block
    assert max(sizes[3:]) - sizes[3] < 16 * 2**20


# requests that are nearly right reach further than those made from a schema alone
SPOKEN = recording(np.sin(np.arange(8000) / 5.0))
nearly = st.fixed_dictionaries(
    {"model": st.just("fake"), "messages": st.lists(st.deferred(lambda: message), min_size=1, max_size=3)},
    optional={
        "stream": st.booleans(),
        "modalities": st.sampled_from([["text"], ["text", "audio"], ["audio"], []]),
        "audio": st.fixed_dictionaries(
            {"voice": st.sampled_from(["alloy", "x", 5]), "format": st.sampled_from(["wav", "pcm16", "mp3", "aiff"])}
        ),
        "max_tokens": st.integers(-1, 20),
        "temperature": st.floats(allow_nan=False, allow_infinity=False),
        "stop": st.text(max_size=2) | st.lists(st.text(max_size=2), max_size=5),
        "stream_options": st.fixed_dictionaries({"include_usage": st.booleans()}),
        "seed": st.integers(),
        "user": st.text(),
    },
)
part = st.one_of(
    st.fixed_dictionaries({"type": st.just("text"), "text": st.text(max_size=30)}),
    st.fixed_dictionaries(
        {
            "type": st.just("input_audio"),
            "input_audio": st.fixed_dictionaries(
                {
                    "data": st.sampled_from([SPOKEN, SPOKEN[:99], "", "####"]),
                    "format": st.sampled_from(["wav", "mp3", "pcm16"]),
                }
            ),
        }
    ),
)
message = st.fixed_dictionaries(
    {
        "role": st.sampled_from(["user", "assistant", "system", "tool"]),
        "content": st.text(max_size=30) | st.lists(part, max_size=2),
    },
    optional={"audio": st.fixed_dictionaries({"id": st.text(max_size=10)})},
)


async def post(app: Any, content: bytes) -> tuple[int, bytes]:
    """Send a body to the application."""
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as http:
        answer = await http.post("/v1/chat/completions", content=content)
        return answer.status_code, answer.content


def judge(status: int, content: bytes) -> None:
    """Accept an answer, or a refusal in OpenAI's form."""
    assert status in (200, 400, 404, 413), content
    if status != 200:
        assert set(json.loads(content)["error"]) == {"message", "type", "param", "code"}


@settings(max_examples=SHORT, **PROFILE)
@given(nearly)
def test_requests_that_are_nearly_right_are_answered_or_refused(app, body):
    judge(*asyncio.run(post(app, json.dumps(body).encode())))


@settings(max_examples=SHORT, **PROFILE)
@given(st.binary(max_size=200) | st.text(max_size=200).map(lambda t: t.encode("utf-8", "surrogatepass")))
def test_any_bytes_are_refused(app, content):
    status, answer = asyncio.run(post(app, content))
    judge(status, answer)
    assert status == 400


def test_the_document_knows_every_parameter(app):
    document = app.openapi()
    operation = document["paths"]["/v1/chat/completions"]["post"]
    body = operation["requestBody"]["content"]["application/json"]["schema"]
    assert set(body["properties"]) == set(ChatRequest.model_fields)
    assert set(document["paths"]) >= {"/v1/chat/completions", "/v1/models", "/health"}
    assert "422" not in operation["responses"]
