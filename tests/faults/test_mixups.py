"""Many clients at once, some of whom leave: everybody who stays gets the own answer, whole, and nothing is left."""

import asyncio
import base64
import json
import random
from contextlib import aclosing

import numpy as np
import pytest

from faults.conftest import SPEECH, body, holdings, request
from slm_serve.backends.fake import FakeBackend
from slm_serve.ops.limits import Limits

pytestmark = pytest.mark.anyio


class Parrot(FakeBackend):
    """Says the number that it was asked for, once in words and as often in units as it is large."""

    def __init__(self, write, tokenizer):
        super().__init__([[[0]]], context=None)
        self._write, self._tokenizer = write, tokenizer

    async def generate(self, ids, params, model):
        asked = int(self._tokenizer.decode(ids).split("number ")[1].split(" ")[0])
        said = [*self._write(f"this is {asked}"), *asked * self._write(f"<|{asked % 50}|>")]
        self.scripts = [[[token] for token in (*said, self._tokenizer.eos_token_id)]]
        async with aclosing(super().generate(ids, params, model)) as deltas:
            async for delta in deltas:
                yield delta


def question(number: int) -> dict:
    return {"messages": [{"role": "user", "content": f"say the number {number} please"}], "max_tokens": 500}


async def heard(g, number: int) -> tuple[str, int, int]:
    """Return the words, the units' pitch and their count of a streamed answer."""
    words, sound = "", b""
    asked = body(stream=True, **SPEECH, **question(number))
    async with g.http.stream("POST", "/v1/chat/completions", content=asked) as answer:
        async for line in answer.aiter_lines():
            if line.startswith("data: {"):
                for choice in json.loads(line[6:])["choices"]:
                    audio = choice["delta"].get("audio") or {}
                    words += audio.get("transcript") or ""
                    sound += base64.b64decode(audio.get("data") or "")
    wave = np.frombuffer(sound, "<i2").astype(float)
    # 480 samples of 1 + unit periods a unit at 24 kHz
    pitch = int(np.abs(np.fft.rfft(wave)).argmax() * 480 / len(wave) + 0.5) - 1
    return words, pitch, round(len(wave) / 480)


async def leave(g, number: int, after_bytes: int) -> None:
    """Ask and go away in the middle."""
    reader, writer = await g.connect()
    writer.write(request(body(stream=True, **SPEECH, **question(number))))
    await reader.readexactly(after_bytes)
    writer.transport.abort()


async def storm(g, n_clients: int) -> None:
    draw = random.Random(0)
    staying, leaving = {}, []
    for place in range(n_clients):
        number = draw.randrange(20, 140)
        if place % 4 == 3:
            leaving.append(leave(g, number, draw.randrange(1, 900)))
        else:
            staying[place] = (number, heard(g, number))
    gone = asyncio.gather(*leaving)
    answers = await asyncio.gather(*(work for _, work in staying.values()))
    await gone
    for (number, _), answer in zip(staying.values(), answers, strict=True):
        assert answer == (f"this is {number}", number % 50, number)


async def settle(g, before) -> None:
    while b"slm_running 0.0" not in g.service.metrics.page():
        await asyncio.sleep(0.01)
    assert all([await call.ended.wait() for call in g.backend.calls])
    await g.settled(before)


async def test_everybody_gets_the_own_answer(live, write, tokenizer):
    limits = Limits(streams=8, queue=1000)
    async with live(backend=Parrot(write, tokenizer), limits=limits) as g:
        # threads and their pipes are made by the first answer
        await heard(g, 20)
        await g.http.aclose()
        async with g.client() as g.http:
            before = holdings()
        async with g.client() as g.http:
            await storm(g, 40)
        await settle(g, before)


@pytest.mark.slow
async def test_memory_is_flat_over_thousands_of_answers(live, write, tokenizer):
    import psutil

    limits = Limits(streams=16, queue=10_000)
    async with live(backend=Parrot(write, tokenizer), limits=limits) as g:
        sizes = []
        for _ in range(12):
            async with g.client() as g.http:
                await storm(g, 200)
            g.backend.calls.clear()
            sizes.append(psutil.Process().memory_info().rss)
        # the store of answers fills to its 1000 in the first third; after it nothing is kept
        assert max(sizes[6:]) - sizes[5] < 32 * 2**20
