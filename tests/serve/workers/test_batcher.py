import asyncio
import threading

import pytest

from slm_serve.workers.batcher import Batcher

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend():
    return "asyncio"


async def test_calls_that_come_while_one_runs_run_together():
    batches, begun, go = [], threading.Event(), threading.Event()

    def double(items):
        batches.append(list(items))
        begun.set()
        go.wait()
        return [2 * item for item in items]

    batcher = Batcher(double, "test")
    first = asyncio.create_task(batcher(1))
    await asyncio.to_thread(begun.wait)
    others = [asyncio.create_task(batcher(item)) for item in (2, 3, 4)]
    while batcher.n_waiting < 3:
        await asyncio.sleep(0)
    go.set()
    assert [await call for call in (first, *others)] == [2, 4, 6, 8]
    assert batches == [[1], [2, 3, 4]]
    await batcher.close()


async def test_a_call_that_was_left_is_not_run():
    batches, begun, go = [], threading.Event(), threading.Event()

    def run(items):
        batches.append(list(items))
        begun.set()
        go.wait()
        return list(items)

    batcher = Batcher(run, "test", most=1)
    first = asyncio.create_task(batcher(1))
    await asyncio.to_thread(begun.wait)
    left, kept = asyncio.create_task(batcher(2)), asyncio.create_task(batcher(3))
    while batcher.n_waiting < 2:
        await asyncio.sleep(0)
    left.cancel()
    await asyncio.gather(left, return_exceptions=True)
    go.set()
    assert (await first, await kept) == (1, 3)
    assert batches == [[1], [3]]
    await batcher.close()


async def test_no_more_wait_than_the_queue_holds():
    begun, go = threading.Event(), threading.Event()

    def run(items):
        begun.set()
        go.wait()
        return list(items)

    batcher = Batcher(run, "test", most=1, waiting=2)
    calls = [asyncio.create_task(batcher(1))]
    await asyncio.to_thread(begun.wait)
    calls += [asyncio.create_task(batcher(item)) for item in range(2, 7)]
    for _ in range(20):
        await asyncio.sleep(0)
        assert batcher.n_waiting <= 2
    go.set()
    assert [await call for call in calls] == [1, 2, 3, 4, 5, 6]
    await batcher.close()


async def test_an_error_goes_to_the_call_that_it_belongs_to():
    batcher = Batcher(lambda items: [ValueError("odd") if item % 2 else item for item in items], "test")
    results = await asyncio.gather(*[batcher(item) for item in range(4)], return_exceptions=True)
    assert [str(result) for result in results] == ["0", "odd", "2", "odd"]
    await batcher.close()


async def test_a_batch_that_fails_fails_every_call_and_no_later_one():
    def run(items):
        if 0 in items:
            raise ValueError("zero")
        return list(items)

    batcher = Batcher(run, "test")
    with pytest.raises(ValueError, match="zero"):
        await batcher(0)
    assert await batcher(1) == 1
    await batcher.close()


async def test_closing_ends_those_who_wait():
    begun, go = threading.Event(), threading.Event()

    def run(items):
        begun.set()
        go.wait()
        return list(items)

    batcher = Batcher(run, "test", most=1)
    calls = [asyncio.create_task(batcher(item)) for item in (1, 2)]
    await asyncio.to_thread(begun.wait)
    go.set()
    await batcher.close()
    results = await asyncio.gather(*calls, return_exceptions=True)
    assert isinstance(results[1], asyncio.CancelledError)


def test_a_loop_that_follows_another_is_served_too():
    batcher = Batcher(lambda items: [2 * item for item in items], "test")
    assert asyncio.run(asyncio.wait_for(batcher(1), 10)) == 2
    assert asyncio.run(asyncio.wait_for(batcher(2), 10)) == 4
