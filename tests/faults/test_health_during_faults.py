"""Readiness (``/health``) and liveness (``/health/live``) while each fault lasts, and after it."""

import asyncio
import json
from contextlib import asynccontextmanager

import pytest

from faults.conftest import SPEECH, body, request
from faults.test_backpressure import event, opened
from faults.test_leftovers import Dead
from slm_plugin.errors import EngineError
from slm_serve import background as background_module
from slm_serve import health as health_module
from slm_serve.fakes import FakeCodec
from slm_serve.ops.limits import Limits

pytestmark = pytest.mark.anyio

PROBE_S = 2.0
"""Seconds in which a probe must be answered: less than the 5 s of the check itself."""


async def probes(g) -> tuple[int, int]:
    """Return the statuses of readiness and liveness."""
    async with asyncio.timeout(PROBE_S):
        ready = await g.http.get("/health")
        return ready.status_code, (await g.http.get("/health/live")).status_code


@asynccontextmanager
async def probed(g):
    """Probe over and over; every answer must be 200."""
    seen = []

    async def run():
        while True:
            seen.append(await probes(g))
            await asyncio.sleep(0.01)

    probing = asyncio.create_task(run())
    await asyncio.sleep(0.05)
    yield
    after = await probes(g)
    probing.cancel()
    # a probe that was late has ended the task with a TimeoutError
    with pytest.raises(asyncio.CancelledError):
        await probing
    assert {*seen, after} == {(200, 200)}


async def test_a_websocket_client_that_does_not_read(live):
    item = {
        "id": "i",
        "type": "message",
        "role": "user",
        "content": [{"type": "input_text", "text": "word " * 20_000}],
    }
    async with live("a", limits=Limits(stall_s=0.3)) as g, probed(g):
        _, writer = await opened(g)
        writer.write(event("conversation.item.create", item=item))
        for _ in range(30):
            writer.write(event("conversation.item.retrieve", item_id="i"))
        await asyncio.sleep(0.6)
        writer.transport.abort()


@pytest.mark.parametrize("content", [b'{"messages":[' + b"0," * 2_000_000 + b"0]}", b"[" * 1_000_000])
async def test_a_body_that_costs_more_than_its_size(live, content):
    async with live("a") as g, probed(g):
        assert (await g.http.post("/v1/chat/completions", content=content)).status_code in (400, 413)


async def test_a_form_that_names_a_slow_codec(live):
    content = b'--b\r\ncontent-disposition: form-data; name="model"\r\n\r\n' + b"a-" * 800_000 + b"\r\n--b--\r\n"
    headers = {"content-type": "multipart/form-data; boundary=b; charset=punycode"}
    async with live("a") as g, probed(g):
        assert (await g.http.post("/v1/audio/transcriptions", content=content, headers=headers)).status_code == 400


async def test_many_health_checks(live):
    async with live("a") as g, g.client() as many:
        checks = [asyncio.create_task(many.get("/health")) for _ in range(200)]
        assert await probes(g) == (200, 200)
        assert {(await check).status_code for check in checks} == {200}


async def test_a_full_queue(live):
    async with live("a", limits=Limits(streams=1, queue=1), hang_after=0) as g, g.client() as others:
        waiting = [asyncio.create_task(others.post("/v1/chat/completions", content=body())) for _ in range(3)]
        (refused,), _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        assert refused.result().status_code == 429
        # the server works as it should: it must be neither taken out of service nor killed
        assert await probes(g) == (200, 200)
        for one in waiting:
            one.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)


async def test_headers_and_bodies_that_do_not_arrive(live):
    async with live("a", limits=Limits(streams=1, queue=1)) as g, probed(g):
        slow = [await g.connect() for _ in range(20)]
        for _, writer in slow:
            writer.write(request(body())[:-3])
        await asyncio.sleep(0.1)
        for _, writer in slow:
            writer.transport.abort()


async def test_a_dead_store_of_spoken_answers(live):
    async with live("a<|3|><|eot_id|>") as g:
        g.service.history._store = Dead(0)
        # a spoken answer whose id would refer to nothing is refused; text goes on, and taking all servers of one
        # store out of service would end that too
        assert (await g.ask(**SPEECH)).status_code == 503
        assert (await g.ask()).status_code == 200
        assert await probes(g) == (200, 200)


async def test_a_dead_engine_and_its_return(live):
    async with live("a") as g:
        g.backend.alive = False
        assert await probes(g) == (503, 200)
        assert json.loads((await g.http.get("/health")).content)["engine"] == "does not answer"
        g.backend.alive = True
        assert await probes(g) == (200, 200)


async def test_an_engine_that_fails_in_answers(live):
    async with live("a", failure=EngineError("gone")) as g:
        assert (await g.ask()).status_code == 503
        # whether the engine is gone, its own check decides
        assert await probes(g) == (200, 200)


async def test_an_engine_whose_check_hangs(live, monkeypatch):
    monkeypatch.setattr(health_module, "CHECK_S", 0.1)

    async def hang():
        await asyncio.Event().wait()

    async with live("a") as g:
        monkeypatch.setattr(g.backend, "healthy", hang)
        assert await probes(g) == (503, 200)


async def test_an_engine_whose_check_raises(live, monkeypatch):
    async def broken():
        raise RuntimeError("secret")

    async with live("a") as g:
        monkeypatch.setattr(g.backend, "healthy", broken)
        assert await probes(g) == (503, 200)
        assert "secret" not in (await g.http.get("/health")).text


class MuteCodec(FakeCodec):
    """A codec whose vocoder fails."""

    def stream(self):
        raise RuntimeError("no sound")


class TestVocoder:
    @pytest.fixture
    def codec(self):
        return MuteCodec(50)

    async def test_a_vocoder_that_fails(self, live):
        async with live("a") as g:
            assert await probes(g) == (503, 200)


async def test_a_background_task_that_cannot_be_restarted(live, monkeypatch):
    monkeypatch.setattr(background_module, "FIRST_PAUSE_S", 0.001)
    monkeypatch.setattr(background_module, "LONGEST_PAUSE_S", 0.002)

    async def work():
        raise OSError

    async with live("a") as g:
        g.service.background.start("work", work)
        while g.service.background.alive:
            await asyncio.sleep(0.001)
        # requests are still answered, but the process needs a restart
        assert await probes(g) == (200, 503)
