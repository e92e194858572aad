"""``/v1/audio/speech`` through the real client: a file that grows, or events."""

import base64
import io

import av
import numpy as np
import openai
import pytest
import soundfile

from slm_serve import sound_files
from slm_serve.sound_files import pack

pytestmark = pytest.mark.anyio

# 1.6 seconds in two words
SAID = "good " + "<|3|><|4|>" * 20 + "morning" + "<|5|><|6|>" * 20 + "<|eot_id|>"
N_SAMPLES = 24_000 * 80 // 50


def decoded(data: bytes) -> np.ndarray:
    """Decode a file by FFmpeg, mono at 24 kHz."""
    with av.open(io.BytesIO(data)) as file:
        resampler = av.AudioResampler("s16", "mono", 24_000)
        frames = [frame for packed in file.decode(audio=0) for frame in resampler.resample(packed)]
        frames += resampler.resample(None)
    return np.concatenate([frame.to_ndarray().reshape(-1) for frame in frames]) / 32768


@pytest.fixture
def wave(codec):
    """What the fake codec says, as samples at 24 kHz."""
    from slm_serve.voice import Voice

    voice = Voice(codec)
    return np.frombuffer(voice.push([3, 4] * 20 + [5, 6] * 20) + voice.finish(), "<i2")


async def test_a_text_is_said_in_the_words_of_the_training(gateway, tokenizer, wave):
    async with gateway(SAID) as g:
        answer = await g.client.audio.speech.create(
            model="fake", voice="alloy", input="good morning", response_format="pcm"
        )
        (call,) = g.backend.calls
    asked = [{"role": "user", "content": "Please speak out loud the following words: good morning"}]
    assert call.ids == tokenizer.apply_chat_template(asked, add_generation_prompt=True, return_dict=False)
    assert answer.response.headers["content-type"] == "audio/pcm"
    np.testing.assert_array_equal(np.frombuffer(answer.content, "<i2"), wave)


# how much longer than the sound a file may play: encoders work in frames, some begin with silence
@pytest.mark.parametrize(("form", "most_more"), [("wav", 0), ("flac", 0), ("opus", 960), ("mp3", 2400), ("aac", 3072)])
async def test_every_form_plays_the_same(form, most_more, gateway, wave):
    async with gateway(SAID) as g:
        answer = await g.client.audio.speech.create(model="fake", voice="alloy", input="hi", response_format=form)
    assert answer.response.headers["content-type"] == sound_files.MEDIA_TYPES[form]
    played = decoded(answer.content)
    assert 0 <= len(played) - N_SAMPLES <= most_more
    # the same sound somewhere in it: the best overlap has the power of the original
    spectrum = np.fft.rfft(played, 2 * len(played)) * np.conj(np.fft.rfft(wave / 32768, 2 * len(played)))
    assert np.fft.irfft(spectrum).max() > 0.9 * ((wave / 32768) ** 2).sum()


async def test_without_a_wish_it_is_an_mp3(gateway):
    async with gateway(SAID) as g:
        answer = await g.client.audio.speech.create(model="fake", voice={"id": "default"}, input="hi")
    assert answer.response.headers["content-type"] == "audio/mpeg"
    assert soundfile.info(io.BytesIO(answer.content)).format == "MP3"


async def test_the_first_bytes_leave_before_the_engine_has_ended(gateway):
    said = ["good ", *["<|3|>"] * 60]
    async with gateway(said, hang_after=50) as g:
        client = g.client.audio.speech.with_streaming_response
        async with served_stream(client, g) as pieces:
            first = await anext(pieces)
            assert first
            assert not g.backend.calls[0].ended.is_set()
        await g.backend.calls[0].ended.wait()


def served_stream(client, g):
    """Read a response over a real connection, for the in-process transport gives it as a whole."""
    from contextlib import asynccontextmanager

    import httpx

    from serve.sockets import served

    @asynccontextmanager
    async def opened():
        body = {"model": "fake", "voice": "alloy", "input": "hi", "response_format": "pcm"}
        async with (
            served(g.http._transport.app) as address,
            httpx.AsyncClient(trust_env=False) as http,
            http.stream("POST", f"http://{address}/v1/audio/speech", json=body) as answer,
        ):
            yield answer.aiter_bytes()

    return opened()


async def test_events_hold_the_file_and_the_tokens(gateway, wave):
    async with gateway(SAID) as g:
        answer = await g.client.audio.speech.create(
            model="fake", voice="alloy", input="hi", response_format="pcm", stream_format="sse"
        )
        (call,) = g.backend.calls
    from openai._streaming import SSEDecoder

    events = [event.json() for event in SSEDecoder().iter_bytes(iter([answer.content]))]
    assert [event["type"] for event in events[:-1]] == ["speech.audio.delta"] * (len(events) - 1)
    data = b"".join(base64.b64decode(event["audio"]) for event in events[:-1])
    np.testing.assert_array_equal(np.frombuffer(data, "<i2"), wave)
    assert events[-1]["type"] == "speech.audio.done"
    assert events[-1]["usage"]["output_tokens"] == len(call.sent)
    assert events[-1]["usage"]["input_tokens"] == len(call.ids)


async def test_instructions_replace_the_words_of_the_training(gateway, tokenizer):
    async with gateway(SAID) as g:
        await g.client.audio.speech.create(model="fake", voice="alloy", input="hi", instructions="Whisper:")
        (call,) = g.backend.calls
    asked = [{"role": "user", "content": "Whisper: hi"}]
    assert call.ids == tokenizer.apply_chat_template(asked, add_generation_prompt=True, return_dict=False)


BAD = {
    "no input": ({"input": None}, "input", "required"),
    "an empty input": ({"input": ""}, "input", "at least 1"),
    "an input that is too long": ({"input": "x" * 4097}, "input", "at most 4096"),
    "no voice": ({"voice": None}, "voice", "required"),
    "an unknown voice": ({"voice": "tenor"}, "voice", "no voice 'tenor'"),
    "another speed": ({"speed": 1.5}, None, "speed"),
    "an unknown form": ({"response_format": "aiff"}, "response_format", "'mp3'"),
    "an unknown form of stream": ({"stream_format": "ws"}, "stream_format", "'sse'"),
    "an unknown parameter": ({"pitch": 2}, "pitch", "unknown parameter"),
}


@pytest.mark.parametrize("name", BAD)
async def test_it_refuses(name, gateway):
    change, param, words = BAD[name]
    body = {"model": "fake", "voice": "alloy", "input": "hi", **change}
    async with gateway("a") as g:
        answer = await g.http.post("/v1/audio/speech", json=body)
        assert g.backend.calls == []
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert error["param"] == param
    assert words in error["message"]


async def test_a_form_without_an_encoder_is_refused_by_name(gateway, monkeypatch):
    monkeypatch.setattr(sound_files, "has_encoder", lambda form: form != "aac")
    async with gateway(SAID) as g:
        with pytest.raises(openai.BadRequestError, match="lacks the encoder 'aac'") as caught:
            await g.client.audio.speech.create(model="fake", voice="alloy", input="hi", response_format="aac")
    assert caught.value.param == "response_format"


async def test_a_model_that_says_nothing_is_told(gateway):
    async with gateway("good morning<|eot_id|>") as g:
        with pytest.raises(openai.BadRequestError, match="nothing to say"):
            await g.client.audio.speech.create(model="fake", voice="alloy", input="hi")


def test_a_whole_aac_file_opens():
    samples = (0.3 * np.sin(np.arange(24_000) / 10) * 32767).astype("<i2").tobytes()
    assert 24_000 <= len(decoded(pack(samples, "aac"))) <= 24_000 + 3072
