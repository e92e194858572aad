"""Places for work, in the order of arrival."""

import asyncio

import pytest

from slm_serve.errors import RequestError
from slm_serve.ops.gate import Gate

pytestmark = pytest.mark.anyio


async def test_places_are_given_in_the_order_of_arrival():
    gate, order = Gate(1, 10), []
    entered = await gate.enter()

    async def work(name):
        began = await gate.enter()
        order.append(name)
        gate.leave(began)

    waiting = [asyncio.create_task(work(name)) for name in "abc"]
    await asyncio.sleep(0)
    assert (gate.running, gate.waiting) == (1, 3)
    gate.leave(entered)
    await asyncio.gather(*waiting)
    assert order == ["a", "b", "c"]
    assert (gate.running, gate.waiting) == (0, 0)


async def test_a_full_queue_says_when_to_come_back():
    now = [0.0]
    gate = Gate(2, 1, lambda: now[0])
    begun = [await gate.enter(), await gate.enter()]
    waiting = asyncio.create_task(gate.enter())
    await asyncio.sleep(0)
    with pytest.raises(RequestError) as refused:
        await gate.enter()
    assert refused.value.status == 429
    # one waits and this one comes behind it: 2 turns of 5 s over 2 places
    assert refused.value.retry_after_s == 5
    now[0] = 25.0
    gate.leave(begun[0])
    await waiting
    # .9 * 5 + .1 * 25 = 7 s are typical now; nobody waits: 1 turn of 7 s over 2 places is 3.5 s
    assert gate.retry_after_s() == 4


async def test_who_leaves_the_queue_in_the_moment_of_its_turn_passes_it_on():
    gate = Gate(1, 5)
    entered = await gate.enter()
    first, second = asyncio.create_task(gate.enter()), asyncio.create_task(gate.enter())
    await asyncio.sleep(0)
    gate.leave(entered)
    # the turn is given, and its owner does not know yet
    first.cancel()
    gate.leave(await second)
    assert first.cancelled()
    assert (gate.running, gate.waiting) == (0, 0)
