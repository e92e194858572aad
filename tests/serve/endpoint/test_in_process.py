"""The engine of our own process, against a fake of vLLM's client; test_real_vllm.py has a real one."""

import asyncio

import pytest
from vllm.sampling_params import RequestOutputKind
from vllm.v1.engine.exceptions import EngineDeadError, EngineGenerateError

from serve.endpoint.fake_engine_client import FakeEngineClient, FakeServed
from slm_plugin.errors import EngineError
from slm_plugin.vocabulary import UnitVocabulary
from slm_serve.backends.in_process import InProcessBackend
from slm_serve.backends.protocol import Delta, SamplingParams
from slm_serve.backends.pulse import PULSE_S
from slm_serve.context import RequestContext, enter
from slm_serve.errors import RequestError
from slm_serve.interleave.constraint import Constraint

pytestmark = pytest.mark.anyio

THREE = SamplingParams(max_tokens=3)


def backend(client):
    return InProcessBackend(client, FakeServed(client))


async def collect(client, params=THREE, model="m"):
    return [delta async for delta in backend(client).generate([5, 6], params, model)]


async def test_ids_go_in_and_come_out():
    client = FakeEngineClient([[7], [8, 9]], "length")
    params = SamplingParams(max_tokens=3, temperature=0.0, seed=0, stop_token_ids=(1,))
    assert await collect(client, params) == [Delta([7]), Delta([8, 9], "length")]
    (request,) = client.requests
    assert request.prompt == {"type": "token", "prompt_token_ids": [5, 6]}
    given = request.params
    assert (given.max_tokens, given.temperature, given.seed, given.stop_token_ids) == (3, 0.0, 0, [1])
    # ids alone are asked for, as they come
    assert not given.detokenize
    assert given.output_kind is RequestOutputKind.DELTA
    assert request.adapter is None
    assert client.aborted == []


async def test_what_a_request_leaves_open_is_the_models_to_say():
    client = FakeEngineClient(defaults={"temperature": 0.6, "top_p": 0.9, "max_tokens": 50})
    await collect(client, SamplingParams(max_tokens=3, top_p=0.5))
    (request,) = client.requests
    assert (request.params.temperature, request.params.top_p, request.params.max_tokens) == (0.6, 0.5, 3)


async def test_requests_to_the_engine_bear_the_clients_id_and_are_told_apart():
    enter(RequestContext(id="req_1"))
    client = FakeEngineClient()
    await collect(client)
    await collect(client)
    first, second = (request.id for request in client.requests)
    assert first.startswith("req_1-")
    assert first != second


async def test_closing_the_iterator_aborts_the_request():
    client = FakeEngineClient([[7], [8], [9]])
    generation = backend(client).generate([1], THREE, "m")
    assert await anext(generation) == Delta([7])
    assert client.aborted == []
    await generation.aclose()
    assert client.aborted == [client.requests[0].id]


@pytest.mark.parametrize(
    ("client", "words"),
    [
        (FakeEngineClient([[7], [8]], failure=EngineDeadError()), "has ended"),
        (FakeEngineClient([[7], [8]], failure=EngineGenerateError()), "vLLM's log"),
        (FakeEngineClient([[7], [8]], "abort"), "'abort'"),
        (FakeEngineClient([[7], [8]], None), "broke off in the middle"),
    ],
)
async def test_an_engine_that_fails_is_an_engine_error(client, words):
    with pytest.raises(EngineError, match=words) as caught:
        await collect(client)
    assert caught.value.status == 503


async def test_what_the_engine_refuses_is_the_clients_mistake():
    with pytest.raises(RequestError, match="too long") as caught:
        await collect(FakeEngineClient(failure=ValueError("too long")))
    assert caught.value.status == 400
    # vLLM's own check of parameters
    with pytest.raises(RequestError, match="top_p"):
        await collect(FakeEngineClient(), SamplingParams(max_tokens=3, top_p=7.0))


async def test_adapters_of_vllm_are_models_with_the_context_of_their_base():
    client = FakeEngineClient()
    served = FakeServed(client)
    lora = served.lora_requests["expert"]
    assert [delta async for delta in InProcessBackend(client, served).generate([5], THREE, "expert")]
    assert client.requests[0].adapter is lora
    shown = [(card.id, card.context, card.fields["root"]) for card in await backend(client).models()]
    assert shown == [("m", 77, "runs/model"), ("expert", 77, "runs/expert")]
    with pytest.raises(RequestError, match="no model 'gone'") as caught:
        await collect(client, model="gone")
    assert (caught.value.status, caught.value.code) == (404, "model_not_found")


async def test_constraints_go_to_an_engine_that_keeps_to_them():
    client = FakeEngineClient()
    engine = backend(client)
    params = SamplingParams(max_tokens=3, constraint=Constraint("ratio", 2, 3))
    assert [delta async for delta in engine.generate([5], params, "m")]
    engine.constrain(UnitVocabulary(100, 40), 3)
    assert [delta async for delta in engine.generate([5], params, "m")]
    without, with_ = (request.params.extra_args for request in client.requests)
    assert without is None
    assert with_ == {
        "slm_mode": "ratio",
        "slm_text": 2,
        "slm_units": 3,
        "slm_first": 100,
        "slm_count": 40,
        "slm_end": 3,
    }


async def test_an_engine_that_has_ended_is_told_everywhere():
    client = FakeEngineClient()
    engine = backend(client)
    assert await engine.healthy()
    client.alive = False
    assert not await engine.healthy()
    with pytest.raises(EngineError, match="has ended"):
        await engine.models()
    with pytest.raises(EngineError, match="has ended"):
        await collect(client)
    await engine.close()


async def test_an_engine_that_ends_without_a_word_ends_its_answers_too():
    client = FakeEngineClient([[7], [8]], hangs=True)
    engine = backend(client)
    generations = [engine.generate([5], THREE, "m") for _ in range(2)]
    for generation in generations:
        assert await anext(generation) == Delta([7])
    waiting = asyncio.gather(*(anext(generation) for generation in generations), return_exceptions=True)
    await asyncio.sleep(2 * PULSE_S)
    # as long as it runs it may take its time
    assert not waiting.done()
    client.alive = False
    assert [str(error) for error in await waiting] == ["the engine has ended."] * 2
    assert len(client.aborted) == 2


async def test_an_answer_that_is_cancelled_while_it_waits_is_aborted():
    client = FakeEngineClient([[7]], hangs=True)
    task = asyncio.create_task(collect(client))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert len(client.aborted) == 1
    # nobody feels the pulse of an engine that nobody works with
    assert [other for other in asyncio.all_tasks() if "_feel" in repr(other) and not other.cancelling()] == []
