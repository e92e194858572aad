"""Work done before a request is let in: checks, refusals, routing and headers cost the other requests nothing."""

import asyncio

import pytest

from faults.conftest import body, holdings, request
from faults.test_sockets import EVER, read_all
from slm_serve.fakes import FakeCodec
from slm_serve.ops.limits import Limits

pytestmark = pytest.mark.anyio


class SlowCodec(FakeCodec):
    """Counts how often it speaks, and takes its time."""

    n_streams = 0

    def stream(self):
        type(self).n_streams += 1
        import time

        time.sleep(0.1)
        return super().stream()


@pytest.fixture
def codec():
    SlowCodec.n_streams = 0
    return SlowCodec(50)


async def test_many_health_checks_are_one_and_hold_no_answer_up(live):
    async with live("a<|eot_id|>", keys=["secret"]) as g, g.client() as many:
        checks = [asyncio.create_task(many.get("/health")) for _ in range(300)]
        answer = await g.http.post("/v1/chat/completions", content=body(), headers={"authorization": "Bearer secret"})
        assert answer.status_code == 200
        assert {(await check).status_code for check in checks} == {200}
        # at 100 ms each, in the pool of the answers, they took 15 s
        assert SlowCodec.n_streams == 1


async def test_a_health_check_whose_client_leaves_goes_on_for_the_others(live):
    async with live("a") as g:
        _, writer = await g.connect()
        writer.write(b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n")
        while SlowCodec.n_streams == 0:
            await asyncio.sleep(0.001)
        other = asyncio.create_task(g.http.get("/health"))
        await asyncio.sleep(0.01)
        writer.transport.abort()
        assert (await other).status_code == 200


@pytest.mark.parametrize("path", ["/health", "/", "/nothing", "/web/app.js", "/v1/models", "/openapi.json"])
async def test_posts_that_no_route_takes_need_no_place(live, path):
    async with live("a<|eot_id|>", keys=["secret"], limits=Limits(streams=1, queue=0, body_s=EVER)) as g:
        opened = [await g.connect() for _ in range(4)]
        for _, writer in opened:
            # a body that never comes would hold a place
            writer.write(request(body(), path)[:-5])
        await asyncio.sleep(0.05)
        answer = await g.http.post("/v1/chat/completions", content=body(), headers={"authorization": "Bearer secret"})
        assert answer.status_code == 200
        for _, writer in opened:
            writer.transport.abort()


async def test_a_key_opens_no_more_than_reading_of_the_open_paths(live):
    async with live("a", keys=["secret"]) as g:
        assert (await g.http.get("/health/live")).status_code == 200
        for method in ("POST", "PUT", "DELETE", "PATCH"):
            assert (await g.http.request(method, "/health/live")).status_code == 401


async def test_refusals_do_not_shorten_the_time_to_come_back(live):
    async with live("a", limits=Limits(streams=1, queue=0), hang_after=0) as g:
        for _ in range(100):
            assert (await g.http.post("/v1/chat/completions", content=b"{}")).status_code == 400
        _, writer = await g.connect()
        writer.write(request(body(stream=True)))
        while not g.backend.calls:
            await asyncio.sleep(0.001)
        refused = await g.ask()
        assert refused.status_code == 429
        # the first guess; 100 refusals at no time had made it 1
        assert int(refused.headers["retry-after"]) == 5
        writer.transport.abort()


@pytest.mark.parametrize(
    "rest",
    [b"x-%d: " + b"y" * 1000 + b"\r\n", b"y" * 1000],
    ids=["many headers", "one header without end"],
)
async def test_headers_behind_a_request_that_runs_are_bounded_too(live, rest):
    async with live("a", limits=Limits(header_bytes=4096, header_s=EVER), hang_after=0) as g:
        before = holdings()
        reader, writer = await g.connect()
        writer.write(request(body(stream=True)))
        while not g.backend.calls:
            await asyncio.sleep(0.001)
        writer.write(b"GET /health HTTP/1.1\r\nhost: localhost\r\nx: ")
        n_sent = 0
        try:
            for number in range(20_000):
                line = rest % number if b"%d" in rest else rest
                writer.write(line)
                n_sent += len(line)
                await writer.drain()
        except ConnectionError:
            pass
        await read_all(reader)
        # what the kernels and one read take, not 20 MB
        assert n_sent < 8 * 2**20
        writer.close()
        await g.settled(before)


async def test_trailers_without_end_are_dropped(live):
    async with live("a", limits=Limits(header_bytes=4096, header_s=EVER, body_s=EVER)) as g:
        reader, writer = await g.connect()
        head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n"
        writer.write(head + b"2\r\n{}\r\n0\r\n")
        try:
            for number in range(20_000):
                writer.write(b"x-%d: %s\r\n" % (number, b"y" * 1000))
                await writer.drain()
        except ConnectionError:
            pass
        await read_all(reader)
        writer.close()


def test_a_gate_of_no_places_still_says_when_to_come_back():
    from slm_serve.ops.gate import Gate

    assert Gate(0, 0).retry_after_s() == 5
