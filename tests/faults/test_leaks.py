"""What clients, logs and metrics must not show, and measurements that must not cost an answer."""

import asyncio
import logging

import httpx
import pytest

from faults.conftest import SPEECH
from slm_plugin.errors import EngineError
from slm_serve.backends.http import HttpBackend, name_of
from slm_serve.backends.protocol import ModelCard, SamplingParams
from slm_serve.backends.replicas import Replicas
from slm_serve.ops.logs import Discreet
from slm_serve.running import _log_unhandled, _named

pytestmark = pytest.mark.anyio

CARD = ModelCard("fake", 512)
SECRETS = ("user", "pass", "10.1.2.3", "8001", "Traceback", "inner words")


async def refuse(request):
    raise httpx.ConnectError("inner words 10.1.2.3:8001")


def answers(status, text):
    async def answer(request):
        return httpx.Response(status, text=text)

    return answer


@pytest.mark.parametrize(
    "transport",
    [
        httpx.MockTransport(refuse),
        httpx.MockTransport(answers(500, '{"error": {"message": "inner words at 10.1.2.3"}}')),
        httpx.MockTransport(answers(401, "inner words")),
        httpx.MockTransport(answers(200, 'data: {"error": {"message": "inner words"}}\n\n')),
        httpx.MockTransport(answers(200, "data: inner words\n\n")),
        httpx.MockTransport(answers(200, "")),
    ],
    ids=["refused", "500", "401", "error event", "no JSON", "nothing"],
)
async def test_an_engine_that_fails_shows_nothing_of_its_inside(live, transport):
    backend = HttpBackend("http://user:pass@10.1.2.3:8001", transport=transport)
    async with live(backend=backend) as g:
        # the card is known from before, as on a server that has answered already
        g.service._cards["fake"] = CARD
        for more in ({}, {"stream": True}, SPEECH):
            answer = await g.ask(**more)
            for secret in SECRETS:
                assert secret not in answer.text
        assert (await g.http.get("/health")).status_code in (200, 503)
        for secret in SECRETS[:4]:
            assert secret not in g.service.metrics.page().decode()
    other = HttpBackend("http://user:pass@10.1.2.3:8001", transport=transport)
    with pytest.raises(EngineError) as told:
        async for _ in other.generate([1], SamplingParams(max_tokens=1), "m"):
            pass
    assert not any(secret in str(told.value) for secret in SECRETS)


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("http://user:pass@host:8001", "host:8001"),
        ("http://host", "host"),
        ("https://user@[::1]:8001/v1", "[::1]:8001"),
        ("nonsense", "engine"),
    ],
)
def test_an_engine_is_called_by_its_host_and_port(url, name):
    assert name_of(url) == name


async def test_engines_that_differ_in_their_password_alone_have_names_of_their_own():
    urls = ["http://a:1@host:1", "http://b:2@host:1"]
    replicas = Replicas(_named({url: HttpBackend(url) for url in urls}))
    assert [member.name for member in replicas.members] == ["host:1", "host:1 (2)"]
    await replicas.close()


async def test_the_words_of_an_exception_that_no_task_took_stay_out_of_the_log(caplog):
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(_log_unhandled)

    async def fail():
        raise ValueError("inner words")

    try:
        task = asyncio.create_task(fail())
        await asyncio.wait((task,))
        with caplog.at_level(logging.ERROR):
            loop.call_exception_handler({"message": "m", "exception": task.exception(), "task": task})
    finally:
        loop.set_exception_handler(None)
    (record,) = caplog.records
    line = Discreet("json").format(record)
    assert "ValueError" in line
    assert "inner words" not in line


def test_asyncios_own_record_is_cut_before_the_words():
    text = "Task exception was never retrieved\nfuture: <Task finished exception=ValueError('inner words')>"
    record = logging.LogRecord("asyncio", logging.ERROR, "f", 1, text, (), None)
    assert "inner words" not in Discreet("text").format(record)


SPOKEN = "the <|3|><|4|>cat<|5|><|5|><|eot_id|>"


@pytest.mark.parametrize(
    "interleave", ["text", "units", {"mode": "ratio", "ratio": [1, 2]}, {"mode": "ratio", "ratio": [5, 1]}]
)
@pytest.mark.parametrize("stream", [False, True])
async def test_a_constraint_that_drops_tokens_costs_no_answer(live, write, interleave, stream):
    async with live(SPOKEN) as g:
        answer = await g.ask(interleave=interleave, stream=stream, **SPEECH)
        assert answer.status_code == 200
        assert '"error"' not in answer.text
        page = g.service.metrics.page().decode()
    # what was generated counts, whatever was dropped
    assert f'slm_tokens_total{{kind="text"}} {len(write(SPOKEN)) - 4}.0' in page
    assert 'slm_tokens_total{kind="audio"} 4.0' in page


async def test_measurements_that_fail_cost_no_answer(live, monkeypatch):
    async with live(SPOKEN) as g:

        def broken(*_):
            raise ValueError("counters can only be incremented by non-negative amounts")

        monkeypatch.setattr(g.service.metrics.tokens, "labels", broken)
        assert (await g.ask(**SPEECH)).status_code == 200
