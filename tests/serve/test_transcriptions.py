"""``/v1/audio/transcriptions`` through the real client: whole in three forms, and streamed."""

import base64
import io

import numpy as np
import openai
import pytest
import soundfile

from serve.sounds import recording

pytestmark = pytest.mark.anyio

SAID = "the cat sat<|eot_id|>"


@pytest.fixture
def file(codec):
    """A recording of 0.3 seconds that the fake codec hears as the units 1, 2, 3, five times."""
    return base64.b64decode(recording(codec.decode([1, 2, 3] * 5)))


async def test_a_recording_is_written_down_in_the_words_of_the_training(gateway, file, tokenizer):
    async with gateway(SAID) as g:
        answer = await g.client.audio.transcriptions.create(model="fake", file=file)
        (call,) = g.backend.calls
    units = "<|1|><|2|><|3|>" * 5
    asked = [{"role": "user", "content": f"Please repeat the following words: {units}"}]
    assert call.ids == tokenizer.apply_chat_template(asked, add_generation_prompt=True, return_dict=False)
    assert call.params.temperature == 0
    assert answer.text == "the cat sat"
    assert answer.usage.input_token_details.audio_tokens == 15
    assert answer.usage.input_tokens == len(call.ids)
    assert answer.usage.output_tokens == len(call.sent)


async def test_as_text_and_with_what_is_known_of_the_recording(gateway, file):
    async with gateway(SAID) as g:
        text = await g.client.audio.transcriptions.create(model="fake", file=file, response_format="text")
        verbose = await g.client.audio.transcriptions.create(
            model="fake", file=file, response_format="verbose_json", language="en"
        )
    assert text == "the cat sat\n"
    assert (verbose.text, verbose.language, verbose.segments) == ("the cat sat", "en", None)
    # 15 units of 20 ms
    assert verbose.duration == pytest.approx(0.3)
    assert verbose.usage.seconds == pytest.approx(0.3)


async def test_words_stream_as_they_are_heard(gateway, file):
    async with gateway([" the", " cat", " ", "sat", "<|eot_id|>"]) as g:
        stream = await g.client.audio.transcriptions.create(model="fake", file=file, stream=True)
        events = [event async for event in stream]
    *deltas, done = events
    assert {event.type for event in deltas} == {"transcript.text.delta"}
    assert "".join(event.delta for event in deltas) == "the cat sat"
    assert (done.type, done.text) == ("transcript.text.done", "the cat sat")
    assert done.usage.input_token_details.audio_tokens == 15


async def test_units_in_a_transcription_are_dropped(gateway, file):
    async with gateway("the <|1|><|2|>cat<|eot_id|>") as g:
        answer = await g.client.audio.transcriptions.create(model="fake", file=file)
        assert g.backend.calls[0].params.constraint.mode == "text"
    assert answer.text == "the cat"


@pytest.mark.parametrize(("form", "rate_hz", "channels"), [("FLAC", 48_000, 2), ("OGG", 44_100, 1), ("MP3", 8_000, 1)])
async def test_other_forms_rates_and_channels_are_heard(form, rate_hz, channels, gateway, vocabulary):
    tone = 0.3 * np.sin(2 * np.pi * 440 * np.arange(rate_hz) / rate_hz)
    target = io.BytesIO()
    soundfile.write(target, np.stack([tone] * channels, 1), rate_hz, format=form)
    async with gateway(SAID) as g:
        await g.client.audio.transcriptions.create(model="fake", file=("a.bin", target.getvalue()))
        units = vocabulary.units(g.backend.calls[0].ids)
    # 440 Hz is nearest to unit 8
    assert sum(unit == 8 for unit in units) > 40


BAD = {
    "no model": ({"model": None}, "model", "required"),
    "subtitles": ({"response_format": "srt"}, "response_format", "'json'"),
    "speakers": ({"response_format": "diarized_json"}, "response_format", "'json'"),
    "a prompt": ({"prompt": "names: David"}, "prompt", "not supported"),
    "times of words": ({"timestamp_granularities[]": ["word"]}, "timestamp_granularities", "not supported"),
    "log probabilities": ({"include[]": ["logprobs"]}, "include", "not supported"),
    "chunks": ({"chunking_strategy": "vad"}, "chunking_strategy", "not supported"),
    "heat of the wrong type": ({"temperature": "hot"}, "temperature", "valid number"),
    "a stream of details": ({"stream": "true", "response_format": "verbose_json"}, None, "cannot be streamed"),
    "a misspelt parameter": ({"langage": "en"}, "langage", "Did you mean 'language'?"),
    "a language that is none": ({"language": "English!"}, "language", "pattern"),
}


@pytest.mark.parametrize("name", BAD)
async def test_it_refuses(name, gateway, file):
    change, param, words = BAD[name]
    fields = {key: value for key, value in {"model": "fake", **change}.items() if value is not None}
    async with gateway("a") as g:
        answer = await g.http.post("/v1/audio/transcriptions", data=fields, files={"file": file})
        assert g.backend.calls == []
    assert answer.status_code == 400, answer.text
    error = answer.json()["error"]
    assert error["param"] == param
    assert words in error["message"]


async def test_a_form_that_is_none_or_holds_no_recording_is_refused(gateway, file):
    async with gateway("a") as g:
        for given, words in (
            ({"json": {"model": "fake"}}, "multipart/form-data"),
            ({"data": {"model": "fake"}, "files": {"sound": file}}, "called 'file'"),
            ({"data": {"model": "fake"}, "files": {"x": (None, b"y")}}, "'file' is required"),
            ({"data": {"model": "fake"}, "files": {"file": b""}}, "no bytes"),
            ({"data": {"model": "fake"}, "files": {"file": b"no sound"}}, "cannot be read"),
            ({"content": b"--x", "headers": {"content-type": "multipart/form-data; boundary=y"}}, "cannot be read"),
            ({"content": b"", "headers": {"content-type": "multipart/form-data"}}, "cannot be read"),
        ):
            answer = await g.http.post("/v1/audio/transcriptions", **given)
            assert answer.status_code == 400, words
            assert words in answer.json()["error"]["message"], answer.text
        with pytest.raises(openai.NotFoundError, match="no model 'x'"):
            await g.client.audio.transcriptions.create(model="x", file=file)
