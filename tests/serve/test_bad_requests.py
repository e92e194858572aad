"""Everything that cannot be answered is told in OpenAI's error form, with the place of the mistake."""

import base64
import io
import json

import numpy as np
import openai
import pytest
import soundfile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from serve.sounds import recording, spoken
from slm_serve import parsing
from slm_serve.ops.limits import Limits
from slm_serve.ops.settings import Settings
from slm_serve.protocol import UNSUPPORTED, ChatRequest

pytestmark = pytest.mark.anyio

HELLO = {"role": "user", "content": "hello"}


def tone(seconds: float, rate_hz: int = 16_000) -> np.ndarray:
    return 0.3 * np.sin(2 * np.pi * 440 * np.arange(int(seconds * rate_hz)) / rate_hz)


def check(response, param, words, status=400):
    assert response.status_code == status, response.text
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["type"] == "invalid_request_error"
    assert error["param"] == param
    assert words in error["message"], error["message"]


BAD = {
    "temperature of the wrong type": ({"temperature": "hot"}, "temperature", "valid number"),
    "temperature out of range": ({"temperature": 3}, "temperature", "less than or equal to 2"),
    "top_p of zero": ({"top_p": 0}, "top_p", "greater than 0"),
    "no tokens": ({"max_tokens": 0}, "max_tokens", "greater than or equal to 1"),
    "a truth value for a number": ({"max_tokens": True}, "max_tokens", "valid integer"),
    "two answers": ({"n": 2}, "n", "1"),
    "an empty stop string": ({"stop": ["a", ""]}, "stop[1]", "at least 1 character"),
    "too many stop strings": ({"stop": list("abcde")}, "stop", "at most 4"),
    "a misspelt parameter": ({"temprature": 1}, "temprature", "Did you mean 'temperature'?"),
    "tools": ({"tools": [{"type": "function"}]}, "tools", "not supported"),
    "a JSON answer": ({"response_format": {"type": "json_object"}}, "response_format", "not supported"),
    "log probabilities": ({"logprobs": True}, "logprobs", "not supported"),
    "biased logits": ({"logit_bias": {"1": 1}}, "logit_bias", "not supported"),
    "no messages": ({"messages": []}, "messages", "at least 1"),
    "messages that are none": ({"messages": "hello"}, "messages", "valid list"),
    "no model": ({"model": None}, "model", "required"),
    "an unknown role": ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0]", "'assistant'"),
    "no role": ({"messages": [{"content": "x"}]}, "messages[0]", "role"),
    "no content": ({"messages": [{"role": "user"}]}, "messages[0].content", "required"),
    "content of the wrong type": ({"messages": [{"role": "user", "content": 5}]}, "messages[0].content", "valid list"),
    "an answer that says nothing": ({"messages": [{"role": "assistant"}, HELLO]}, "messages[0]", "audio.id"),
    "text of the wrong type": (
        {"messages": [{"role": "user", "content": [{"type": "text", "text": 5}]}]},
        "messages[0].content[0].text",
        "valid string",
    ),
    "a picture": (
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]},
        "messages[0].content[0]",
        "'input_audio'",
    ),
    "a recording from the system": (
        {"messages": [{"role": "system", "content": [{"type": "input_audio", "input_audio": {}}]}, HELLO]},
        "messages[0].content[0].type",
        "'text'",
    ),
    "a recording without data": (
        {"messages": [{"role": "user", "content": [{"type": "input_audio", "input_audio": {"format": "wav"}}]}]},
        "messages[0].content[0].input_audio.data",
        "required",
    ),
    "a recording of an unknown form": (
        {"messages": [spoken("AAAA", "aiff")]},
        "messages[0].content[0].input_audio.format",
        "'wav'",
    ),
    "an unknown key of a message": (
        {"messages": [{"role": "user", "content": "x", "mood": "good"}]},
        "messages[0].mood",
        "unknown parameter",
    ),
    "an unknown modality": ({"modalities": ["smell"]}, "modalities[0]", "'text'"),
    "sound alone": ({"modalities": ["audio"], "audio": {"voice": "alloy", "format": "wav"}}, None, "alone"),
    "sound of no form": ({"modalities": ["text", "audio"]}, None, "audio (its format and voice) is required"),
    "a form for no sound": ({"audio": {"voice": "alloy", "format": "wav"}}, None, "modalities do not include"),
    "an unknown form of sound": (
        {"modalities": ["text", "audio"], "audio": {"voice": "alloy", "format": "aiff"}},
        "audio.format",
        "'mp3'",
    ),
    "an unknown voice": (
        {"modalities": ["text", "audio"], "audio": {"voice": "tenor", "format": "wav"}},
        "audio.voice",
        "no voice 'tenor'",
    ),
    "a streamed file": (
        {"modalities": ["text", "audio"], "audio": {"voice": "alloy", "format": "wav"}, "stream": True},
        None,
        "'pcm16'",
    ),
    "stream options for no stream": ({"stream_options": {"include_usage": True}}, None, "stream is true"),
    "an answer nobody gave": (
        {"messages": [HELLO, {"role": "assistant", "audio": {"id": "audio_x"}}, HELLO]},
        "messages[1].audio.id",
        "expired",
    ),
}


@pytest.mark.parametrize("name", BAD)
async def test_it_refuses(name, gateway):
    body, param, words = BAD[name]
    async with gateway("a") as g:
        check(await g.post(**body), param, words)
        assert g.backend.calls == []


SOUNDS = {
    "base64 that is none": ("!!!", "wav", "not base64"),
    "letters that base64 has not": ("äöü", "wav", "not base64"),
    "no bytes": ("", "wav", "no bytes"),
    "something that is no recording": (base64.b64encode(b"not a recording at all").decode(), "wav", "cannot be read"),
    "half a recording": (recording(tone(1))[:40], "wav", "cannot be read"),
    "a recording of no samples": (recording(np.zeros(0)), "wav", "too short"),
    "a recording of a moment": (recording(tone(0.01)), "wav", "too short"),
    "a telephone's rate halved": (recording(tone(1, 4000), 4000), "wav", "4000 Hz"),
    "a recording that is too long": (recording(tone(121, 8000), 8000), "wav", "120"),
    "a long recording in a small file": (recording(np.zeros(16_000 * 1000), form="FLAC"), "flac", "120"),
    "half a sample": (base64.b64encode(b"\0\0\0").decode(), "pcm16", "odd number"),
    "no samples": ("", "pcm16", "too short"),
}


@pytest.mark.parametrize("name", SOUNDS)
async def test_it_refuses_a_recording_that_is(name, gateway):
    data, form, words = SOUNDS[name]
    async with gateway("a") as g:
        check(await g.post(messages=[spoken(data, form)]), "messages[0].content[0].input_audio.data", words)
        assert g.backend.calls == []


async def test_samples_that_are_no_numbers_are_refused(gateway):
    file = io.BytesIO()
    soundfile.write(file, np.full(16_000, np.nan, np.float32), 16_000, format="WAV", subtype="FLOAT")
    async with gateway("a") as g:
        response = await g.post(messages=[spoken(base64.b64encode(file.getvalue()).decode())])
    check(response, "messages[0].content[0].input_audio.data", "not a finite number")


@pytest.mark.parametrize(
    ("data", "form"),
    [
        pytest.param(recording(tone(1, 8000), 8000), "wav", id="8 kHz"),
        pytest.param(recording(np.stack([tone(1), tone(1)], 1)), "wav", id="stereo"),
        pytest.param(recording(tone(1, 48_000), 48_000, "FLAC"), "flac", id="flac at 48 kHz"),
        pytest.param(recording(tone(1, 44_100), 44_100, "MP3"), "mp3", id="mp3"),
        pytest.param(recording(tone(1), 16_000, "OGG"), "ogg", id="ogg"),
        pytest.param(
            base64.b64encode((tone(1, 24_000) * 32767).astype("<i2").tobytes()).decode(), "pcm16", id="pcm16"
        ),
    ],
)
async def test_other_rates_channels_and_forms_become_units(data, form, gateway, vocabulary):
    async with gateway("a<|eot_id|>") as g:
        response = await g.post(messages=[spoken(data, form)])
        assert response.status_code == 200, response.text
        units = vocabulary.units(g.backend.calls[0].ids)
    # 50 units a second; 440 Hz is 8.8 periods in 20 ms, which unit 8 (9 periods) is nearest to
    assert 48 <= len(units) <= 55
    assert sum(unit == 8 for unit in units) > 40


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b"null", b'{"model": NaN}', b'"\xff"', b'{"a":' * 5000, b'{"model": "\\ud800"}'],
    ids=["nothing", "half", "list", "null", "NaN", "no UTF-8", "deep", "half a surrogate pair"],
)
async def test_a_body_that_is_no_json_object_is_refused(body, gateway):
    async with gateway("a") as g:
        response = await g.http.post("/v1/chat/completions", content=body)
    assert response.status_code == 400
    assert response.json()["error"]["code"] == "invalid_json"


async def test_a_body_that_is_too_large_is_refused(gateway):
    async with gateway("a", settings=Settings(Limits(body_bytes=1000))) as g:
        assert (await g.post(user="x" * 500)).status_code == 200
        response = await g.post(user="x" * 1000)
    check(response, None, "larger than", status=413)


def test_bodies_may_have_25_mebibytes():
    assert Limits().body_bytes == 25 * 2**20


async def test_a_conversation_that_leaves_no_room_is_refused(gateway):
    async with gateway("a", context=10) as g:
        response = await g.post(messages=[{"role": "user", "content": "hello " * 20}])
    check(response, "messages", "context is 10")
    assert response.json()["error"]["code"] == "context_length_exceeded"


async def test_recordings_that_leave_no_room_are_refused_before_all_are_encoded(gateway, codec, monkeypatch):
    encoded = []
    original = type(codec).encode
    monkeypatch.setattr(type(codec), "encode", lambda self, wave: encoded.append(1) or original(self, wave))
    second = spoken(recording(tone(1)))
    async with gateway("a", context=75) as g:
        # 50 units each
        response = await g.post(messages=[second, HELLO, second, HELLO, second])
    check(response, "messages", "context is 75")
    assert len(encoded) == 2


async def test_an_unknown_model_is_not_found(gateway):
    async with gateway("a") as g:
        with pytest.raises(openai.NotFoundError, match="Models: fake"):
            await g.client.chat.completions.create(model="gpt-5", messages=[HELLO])


async def test_unknown_places_and_methods_are_told_in_the_same_form(gateway):
    async with gateway("a") as g:
        check(await g.http.get("/v1/nothing"), None, "nothing at /v1/nothing", status=404)
        response = await g.http.get("/v1/chat/completions")
        check(response, None, "GET is not possible", status=405)
        assert response.headers["allow"] == "POST"


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
names = st.sampled_from([*ChatRequest.model_fields, *UNSUPPORTED, "unknown"])


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.dictionaries(names, json_values, max_size=4))
def test_any_json_object_is_a_request_or_an_error_with_words(body):
    base = {"model": "fake", "messages": [HELLO]}
    whole = json.dumps({**base, **body}).encode()
    try:
        parsing.parse_json(ChatRequest, whole, UNSUPPORTED)
    except parsing.RequestError as error:
        told = error
    else:
        return
    assert told.status == 400
    assert str(told).endswith(".")
