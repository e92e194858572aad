"""Speaking beside the text: chunks join to the whole, streams do not mix, and words never wait."""

import asyncio
import threading

import httpx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openai import AsyncOpenAI

from serve.sockets import served
from slm_plugin.errors import VocabularyError
from slm_plugin.plugins import Registry
from slm_plugin.speech.protocol import BatchedStreams, VoicedCodec
from slm_serve.fakes import FakeCodec
from slm_serve.voice import Voice, pcm16
from slm_serve.workers.vocoder import Push, VocoderWorker

CODECS = ["fake", "random network", *Registry.load(entry_points=False).codecs.names()]


@pytest.fixture
def anyio_backend():
    return "asyncio"


_loaded = {}


def load(name):
    """Return a codec that works here; those whose weights must be given first are named and skipped."""
    if name not in _loaded:
        try:
            if name == "random network":
                # a small network of the form that hubert-kmeans and xlsr-10k have, with random weights
                from speech.test_hubert_kmeans import make

                _loaded[name] = make()
            else:
                _loaded[name] = FakeCodec() if name == "fake" else Registry.load(entry_points=False).codecs.get(name)()
        except Exception as error:
            _loaded[name] = error
    if isinstance(_loaded[name], Exception):
        pytest.skip(f"codec {name} is not available: {_loaded[name]}")
    return _loaded[name]


@pytest.mark.parametrize("name", CODECS)
@settings(deadline=None, max_examples=25)
@given(data=st.data())
def test_chunks_join_to_the_one_shot_wave(name, data):
    codec = load(name)
    units = data.draw(st.lists(st.integers(0, codec.n_units - 1), max_size=60))
    spots = sorted(data.draw(st.sets(st.integers(0, len(units)), max_size=6)))
    whole, voice = Voice(codec), Voice(codec)
    expected = whole.write(codec.decode(units), last=True)
    pieces = [voice.push(units[a:b]) for a, b in zip([0, *spots], [*spots, len(units)], strict=True)]
    told = b"".join(pieces) + voice.finish()
    assert len(told) == len(expected)
    difference = np.frombuffer(told, "<i2").astype(int) - np.frombuffer(expected, "<i2")
    assert np.abs(difference).max(initial=0) <= 1


@pytest.mark.parametrize("name", CODECS)
def test_the_codecs_own_chunks_join_to_its_one_shot_wave(name):
    codec = load(name)
    units = np.random.default_rng(0).integers(0, codec.n_units, 80).tolist()
    stream, parts = codec.stream(), []
    for start in range(0, 80, 7):
        parts.append(stream.push(units[start : start + 7]))
    wave_N = np.concatenate([*parts, stream.finish()])
    expected = codec.decode(units)
    assert len(wave_N) == len(expected)
    np.testing.assert_allclose(wave_N, expected, atol=1e-5)


@pytest.mark.anyio
async def test_many_answers_at_once_are_what_each_is_alone():
    codec = FakeCodec()
    worker = VocoderWorker(codec)
    said = [[(3 * answer + step) % 50 for step in range(20)] for answer in range(8)]
    voices = [Voice(codec) for _ in said]
    sounds = [b""] * 8
    for start in (0, 5, 10, 15):
        pushes = [
            worker.push(voice, units[start : start + 5], start == 15)
            for voice, units in zip(voices, said, strict=True)
        ]
        sounds = [sound + more for sound, more in zip(sounds, await asyncio.gather(*pushes), strict=True)]
    for units, sound in zip(said, sounds, strict=True):
        alone = Voice(codec)
        assert sound == alone.push(units) + alone.finish()
    await worker.close()


class Together(FakeCodec):
    """A fake codec that moves many streams on at once, and has two voices; it notes what it was asked."""

    voices = ("low", "loud")

    def __init__(self):
        super().__init__()
        self.asked = []

    def advance(self, streams, pushes, last):
        self.asked.append(len(streams))
        waves = [stream.push(units) for stream, units in zip(streams, pushes, strict=True)]
        ends = [stream.finish() if end else np.zeros(0) for stream, end in zip(streams, last, strict=True)]
        return [np.concatenate(both) for both in zip(waves, ends, strict=True)]

    def has_voice(self, voice):
        return voice in self.voices

    def stream_as(self, voice):
        stream = self.stream()
        if voice == "loud":
            push = stream.push
            stream.push = lambda units: 2 * push(units)
        return stream


def test_a_codec_that_can_moves_many_on_at_once():
    codec = Together()
    assert isinstance(codec, BatchedStreams)
    worker_sound = VocoderWorker(codec)._run([Push(Voice(codec), [1, 2], True), Push(Voice(codec), [3], False)])
    assert codec.asked == [2]
    alone = Voice(FakeCodec())
    assert worker_sound[0] == alone.push([1, 2]) + alone.finish()


def test_a_voice_of_the_codec_is_spoken_with():
    codec = Together()
    assert isinstance(codec, VoicedCodec)
    loud, low = Voice(codec, "loud"), Voice(codec, "low")
    loudness = [np.abs(np.frombuffer(v.push([5] * 9) + v.finish(), "<i2")).max() for v in (loud, low)]
    assert loudness[0] == pytest.approx(2 * loudness[1], rel=0.02)


@pytest.mark.anyio
async def test_an_answer_that_nobody_reads_makes_one_chunk():
    worker, news = VocoderWorker(FakeCodec()), asyncio.Event()
    pushed = []
    original = worker.push

    async def push(voice, units, last=False):
        pushed.append(len(units))
        return await original(voice, units, last)

    worker.push = push
    speaker = worker.speaker(None, news)
    speaker.feed([1] * 500)
    speaker.complete()
    await news.wait()
    for _ in range(20):
        await asyncio.sleep(0)
    # .4 s: the first chunk
    assert pushed == [20]
    # the resampler holds a little of it back
    assert 0 < len(speaker.take()) <= 2 * 20 * 480
    while not speaker.done:
        await asyncio.sleep(0)
        speaker.take()
    assert sum(pushed) == 500
    # a second at most, so that an interruption is heard
    assert max(pushed) == 50
    await worker.close()


@pytest.mark.anyio
async def test_a_vocoder_that_fails_tells_the_answer():
    worker, news = VocoderWorker(FakeCodec()), asyncio.Event()
    speaker = worker.speaker(None, news)
    speaker.feed([999])
    await news.wait()
    with pytest.raises(VocabularyError, match="999"):
        speaker.take()
    await worker.close()


@pytest.mark.anyio
async def test_words_do_not_wait_for_a_vocoder_that_is_stuck(gateway, monkeypatch):
    go = threading.Event()

    def stuck(self, units):
        go.wait()
        return np.zeros(320 * len(units), np.float32)

    monkeypatch.setattr("slm_serve.fakes.FakeSpeechStream.push", stuck)
    said = "one <|1|>two <|2|>three <|3|>four<|eot_id|>"
    audio = {"modalities": ["text", "audio"], "audio": {"voice": "alloy", "format": "pcm16"}}
    async with (
        gateway(said) as g,
        served(g.http._transport.app) as address,
        httpx.AsyncClient(trust_env=False) as http,
    ):
        client = AsyncOpenAI(base_url=f"http://{address}/v1", api_key="any", http_client=http)
        try:
            stream = await client.chat.completions.create(
                model="fake", messages=[{"role": "user", "content": "hello"}], stream=True, **audio
            )
            words = ""
            async for chunk in stream:
                sound = chunk.choices[0].delta.audio if chunk.choices else None
                words += (sound and sound.transcript) or ""
                if words == "one two three four":
                    # every word is here, and the vocoder has not said a thing
                    go.set()
                else:
                    assert not (sound and sound.data)
        finally:
            go.set()
    assert words == "one two three four"


def test_silence_is_pcm_of_zeros():
    assert pcm16(np.zeros(3)) == b"\0" * 6
