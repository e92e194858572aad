"""Clients that do not behave: over real sockets, with everything they held given back."""

import asyncio

import pytest

from faults.conftest import body, holdings, request
from slm_serve.backends.fake import FakeBackend
from slm_serve.ops.limits import Limits

pytestmark = pytest.mark.anyio

EVER = 3600.0


async def read_all(reader: asyncio.StreamReader) -> bytes:
    """Read until the other side ends the connection, however it does."""
    try:
        return await reader.read()
    except ConnectionResetError:
        return b""


@pytest.mark.parametrize(
    "sent",
    [b"", b"GET / HT", b"GET /health HTTP/1.1\r\nhost: localhost\r\nx-half", request(b"", "/health")[:-2]],
    ids=["nothing", "half a request line", "half a header", "no end of the headers"],
)
async def test_a_connection_that_never_asks_is_dropped(live, sent):
    async with live("a", limits=Limits(header_s=0.05)) as g:
        before = holdings()
        reader, writer = await g.connect()
        writer.write(sent)
        assert await read_all(reader) == b""
        writer.close()
        await g.settled(before)
        assert not g.server.server_state.connections


async def test_a_connection_that_rests_for_longer_than_stock_clients_keep_it_is_served_again(live):
    async with live("a") as g:
        reader, writer = await g.connect()
        for rest_s in (5.3, 0.0):
            writer.write(b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n")
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200")
            await reader.readexactly(int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0]))
            # httpx, and the openai SDK with it, lets go after 5 s
            await asyncio.sleep(rest_s)
        writer.close()


async def test_headers_without_end_are_dropped_before_they_fill_the_memory(live):
    async with live("a", limits=Limits(header_bytes=4096, header_s=EVER)) as g:
        reader, writer = await g.connect()
        writer.write(b"GET /health HTTP/1.1\r\n")
        try:
            for number in range(10_000):
                writer.write(b"x-%d: %s\r\n" % (number, b"y" * 1000))
                await writer.drain()
        except ConnectionError:
            pass
        assert await read_all(reader) == b""
        writer.close()


async def test_a_large_body_that_comes_with_its_header_is_no_header(live):
    async with live("a<|eot_id|>", limits=Limits(header_bytes=4096)) as g:
        assert (await g.ask(user="x" * 500_000)).status_code == 200


async def test_a_body_that_does_not_arrive_is_told_and_its_place_is_free(live):
    async with live("a<|eot_id|>", limits=Limits(body_s=0.05, header_s=0.05, streams=1, queue=0)) as g:
        before = holdings()
        reader, writer = await g.connect()
        writer.write(request(body())[:-10])
        answer = await read_all(reader)
        assert answer.startswith(b"HTTP/1.1 408 ")
        assert b'"code":"request_timeout"' in answer
        assert (await g.ask()).status_code == 200
        writer.close()
        await g.settled(before)


async def test_a_body_larger_than_it_may_be_is_told_before_it_has_arrived(live):
    async with live("a", limits=Limits(body_bytes=10_000)) as g:
        reader, writer = await g.connect()
        head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n"
        writer.write(head + 11 * (b"3e8\r\n" + b"x" * 1000 + b"\r\n"))
        assert b"413 " in await reader.readline()
        writer.close()
        assert g.backend.calls == []


async def test_a_reader_that_does_not_read_is_dropped_and_holds_nobody_up(live, write):
    # 2 MB of text, far more than the buffers of both kernels and of the server hold
    flood = [write(" following") * 1000] * 200
    backend = FakeBackend([flood, [write("short<|eot_id|>")]], context=None)
    limits = Limits(stall_s=0.2, header_s=0.2)
    async with live(backend=backend, limits=limits) as g:
        before = holdings()
        _, writer = await g.connect(receive_buffer=4096)
        writer.write(request(body(stream=True, max_tokens=10**9)))
        while not g.backend.calls:
            await asyncio.sleep(0.001)
        # answered while the other one stalls
        assert (await g.ask()).json()["choices"][0]["message"]["content"] == "short"
        await g.backend.calls[0].ended.wait()
        # the client has not even closed its end
        while b'slm_cancels_total{reason="slow_reader"} 1.0' not in g.service.metrics.page():
            await asyncio.sleep(0.01)
        while g.server.server_state.connections:
            await asyncio.sleep(0.01)
        writer.close()
        await g.settled(before)


async def test_a_whole_answer_that_is_not_read_is_dropped(live, write):
    # 2 MB, of which the kernels take a part
    limits = Limits(header_s=0.2)
    async with live(backend=FakeBackend([[write(" following") * 500] * 400], context=None), limits=limits) as g:
        _, writer = await g.connect(receive_buffer=4096)
        writer.write(request(body(max_tokens=10**9)))
        while not g.backend.calls:
            await asyncio.sleep(0.001)
        await g.backend.calls[0].ended.wait()
        while g.server.server_state.connections:
            await asyncio.sleep(0.01)
        writer.close()


async def test_a_client_that_leaves_the_queue_gives_up_its_turn(live):
    async with live("one ", limits=Limits(streams=1, queue=1), hang_after=0) as g:
        before = holdings()
        first_reader, first = await g.connect()
        first.write(request(body(stream=True)))
        while not g.backend.calls:
            await asyncio.sleep(0.001)
        _, second = await g.connect()
        second.write(request(body(stream=True)))
        while b"slm_queued 1.0" not in g.service.metrics.page():
            await asyncio.sleep(0.001)
        refused = await g.ask()
        assert refused.status_code == 429
        assert 1 <= int(refused.headers["retry-after"]) <= 60
        assert refused.json()["error"]["type"] == "rate_limit_error"
        second.transport.abort()
        while b"slm_queued 0.0" not in g.service.metrics.page():
            await asyncio.sleep(0.001)
        first.transport.abort()
        await g.backend.calls[0].ended.wait()
        while b"slm_running 0.0" not in g.service.metrics.page():
            await asyncio.sleep(0.001)
        await g.settled(before)
        # the one that left never reached the engine
        assert len(g.backend.calls) == 1
        del first_reader


async def test_an_answer_that_takes_too_long_is_ended_with_words(live):
    async with live("one ", limits=Limits(total_s=0.2), hang_after=0) as g:
        whole = await g.ask()
        assert whole.status_code == 504
        assert whole.json()["error"]["code"] == "timeout"
        await g.backend.calls[0].ended.wait()
    async with live(["one ", "two "], limits=Limits(total_s=0.5), hang_after=1) as g:
        streamed = await g.ask(stream=True)
        assert streamed.status_code == 200
        last = streamed.text.strip().splitlines()[-1]
        assert '"code": "timeout"' in last
        await g.backend.calls[0].ended.wait()


async def busy(g, number):
    """Open connections whose requests run."""
    made = []
    for _ in range(number):
        reader, writer = await g.connect()
        writer.write(request(body(stream=True)))
        made.append((reader, writer))
        while len(g.backend.calls) < len(made):
            await asyncio.sleep(0.001)
    return made


async def test_too_many_busy_connections_are_told_to_come_back_and_liveness_goes_on(live):
    async with live("a ", limits=Limits(connections=3, header_s=EVER), hang_after=0) as g:
        running = await busy(g, 3)
        reader, writer = await g.connect()
        writer.write(request(body()))
        assert b"503 " in await reader.readline()
        # whoever restarts the server must not take it for dead
        probe, prober = await g.connect()
        prober.write(b"GET /health/live?x=1 HTTP/1.1\r\nhost: localhost\r\n\r\n")
        assert b"200 " in await probe.readline()
        for _, other in [*running, (reader, writer), (probe, prober)]:
            other.transport.abort()


async def test_idle_connections_make_room_the_longest_resting_first(live):
    async with live("a<|eot_id|>", limits=Limits(connections=3, header_s=EVER)) as g:
        idle = [await g.connect() for _ in range(3)]
        while len(g.server.server_state.connections) < 3:
            await asyncio.sleep(0.001)
        for _ in range(5):
            reader, writer = await g.connect()
            writer.write(request(body()))
            assert b"200 " in await reader.readline()
            writer.transport.abort()
        # renewing them does not help against it
        assert await read_all(idle[0][0]) == b""
        for _, other in idle:
            other.transport.abort()


@pytest.mark.parametrize(
    ("keys", "limits", "status"), [(("secret",), {}, b"401"), ((), {"body_bytes": 10_000}, b"413")]
)
async def test_an_early_refusal_reaches_a_client_that_still_sends(live, keys, limits, status):
    # as a proxy does: it passes a body on to its end and reads afterwards
    content = body(user="x" * 4_000_000)
    async with live("a<|eot_id|>", keys=keys, limits=Limits(**limits)) as g:
        reader, writer = await g.connect()
        writer.write(request(content))
        await writer.drain()
        assert status in await reader.readline()
        writer.close()
