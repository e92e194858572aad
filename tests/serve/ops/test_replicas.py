"""Several engines behind one."""

import asyncio

import pytest

from slm_plugin.errors import EngineError
from slm_serve import context
from slm_serve.backends.fake import FakeBackend
from slm_serve.backends.protocol import SamplingParams
from slm_serve.backends.replicas import REST_S, SLACK, Replicas

pytestmark = pytest.mark.anyio

PARAMS = SamplingParams(max_tokens=5)


@pytest.fixture
def engines():
    return {name: FakeBackend([[[1], [2]]]) for name in ("a", "b", "c")}


async def ask(replicas, request=None):
    context.enter(request or context.RequestContext())
    return [token async for delta in replicas.generate([7], PARAMS, "fake") for token in delta.ids]


def asked(engines):
    return {name: len(engine.calls) for name, engine in engines.items()}


async def test_the_least_busy_engine_answers(engines):
    for engine in engines.values():
        engine.hang_after = 1
    replicas = Replicas(engines)
    running = [asyncio.create_task(ask(replicas)) for _ in range(7)]
    while sum(asked(engines).values()) < 7:
        await asyncio.sleep(0)
    assert sorted(asked(engines).values()) == [2, 2, 3]
    for task in running:
        task.cancel()
    await asyncio.gather(*running, return_exceptions=True)
    assert [member.running for member in replicas.members] == [0, 0, 0]


async def test_a_conversation_goes_on_where_it_began_unless_that_is_far_busier(engines):
    replicas = Replicas(engines)
    for _ in range(4):
        await ask(replicas, context.RequestContext(replica="b"))
    assert asked(engines) == {"a": 0, "b": 4, "c": 0}
    replicas.members[1].running = SLACK
    request = context.RequestContext(replica="b")
    await ask(replicas, request)
    assert asked(engines)["b"] == 4
    assert request.replica in ("a", "c")


async def test_an_engine_that_is_away_is_replaced_without_a_word_and_left_alone_for_a_while(engines):
    now = [100.0]
    engines["a"].failure = engines["b"].failure = EngineError("away", reached=False)
    replicas = Replicas(engines, lambda: now[0])
    for _ in range(3):
        assert await ask(replicas) == [1, 2]
    assert asked(engines) == {"a": 1, "b": 1, "c": 3}
    now[0] += REST_S + 1
    engines["a"].failure = None
    await ask(replicas)
    assert asked(engines)["a"] == 2


async def test_an_answer_that_has_begun_is_never_begun_again_elsewhere(engines):
    for engine in engines.values():
        engine.failure, engine.fail_after = EngineError("away", reached=False), 1
    replicas = Replicas(engines)
    with pytest.raises(EngineError):
        await ask(replicas)
    assert sum(asked(engines).values()) == 1


async def test_when_all_are_away_it_is_said(engines):
    for engine in engines.values():
        engine.failure, engine.alive = EngineError("away", reached=False), False
    replicas = Replicas(engines)
    with pytest.raises(EngineError, match="away"):
        await ask(replicas)
    assert asked(engines) == {"a": 1, "b": 1, "c": 1}
    assert not await replicas.healthy()
    engines["c"].alive = True
    assert await replicas.healthy()


async def test_a_model_is_asked_of_an_engine_that_has_it(engines):
    engines["c"].model = "rare"
    replicas = Replicas(engines)
    assert sorted(card.id for card in await replicas.models()) == ["fake", "rare"]
    for _ in range(3):
        assert [token async for delta in replicas.generate([7], PARAMS, "rare") for token in delta.ids] == [1, 2]
    assert asked(engines) == {"a": 0, "b": 0, "c": 3}


async def test_a_request_that_ends_engines_does_not_meet_all_of_them(engines):
    for engine in engines.values():
        engine.failure = EngineError("broke off")
    with pytest.raises(EngineError):
        await ask(Replicas(engines))
    assert sorted(asked(engines).values()) == [0, 1, 1]
