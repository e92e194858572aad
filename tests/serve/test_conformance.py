"""The conformance table: complete by the SDK's own types, and every example of it true."""

import typing

import pytest
from openai.types.audio.speech_create_params import SpeechCreateParams
from openai.types.audio.transcription_create_params import TranscriptionCreateParamsStreaming
from openai.types.chat.completion_create_params import CompletionCreateParamsStreaming
from openai.types.realtime import RealtimeClientEvent, RealtimeSessionCreateRequest

from serve.sockets import realtime
from slm_serve.conformance import page
from slm_serve.conformance.table import CHAT, CLIENT_EVENTS, ENDPOINTS, SESSION, SPEECH, TRANSCRIPTION
from slm_serve.protocol import ChatRequest
from slm_serve.protocol_audio import SpeechRequest, TranscriptionRequest
from slm_serve.realtime.events import EVENTS, SessionSettings

pytestmark = pytest.mark.anyio

SAID = "good <|3|>morning<|4|><|eot_id|>"
HELLO = {"role": "user", "content": "hello"}


def event_types():
    kinds = typing.get_args(typing.get_args(RealtimeClientEvent)[0])
    return {typing.get_args(kind.model_fields["type"].annotation)[0] for kind in kinds}


KNOWN = {
    "chat": (CHAT, set(typing.get_type_hints(CompletionCreateParamsStreaming)), set(ChatRequest.model_fields)),
    "speech": (SPEECH, set(SpeechCreateParams.__annotations__), set(SpeechRequest.model_fields)),
    "transcription": (
        TRANSCRIPTION,
        set(typing.get_type_hints(TranscriptionCreateParamsStreaming)),
        {*TranscriptionRequest.model_fields, "file"},
    ),
    "session": (SESSION, set(RealtimeSessionCreateRequest.model_fields), set(SessionSettings.model_fields)),
    "client events": (CLIENT_EVENTS, event_types(), set(EVENTS)),
}


@pytest.mark.parametrize("name", KNOWN)
def test_the_table_holds_every_parameter_of_the_sdk_and_of_this_server(name):
    rows, sdk, own = KNOWN[name]
    names = [row.name for row in rows]
    assert len(names) == len(set(names))
    assert {row.name for row in rows if not row.ours} == sdk
    assert {row.name for row in rows if row.ours} == own - sdk
    assert own <= set(names)


def test_every_row_is_shown():
    shown = page.page()
    assert sum(shown.count(f"\n| `{row.name}`") for row in CHAT) >= len(CHAT)
    assert shown.count("\n| `") == sum(map(len, ENDPOINTS.values()))


def named(param, name):
    """Tell whether an error names a parameter: itself, or a place in it."""
    return param is not None and (param == name or param.startswith((f"{name}.", f"{name}[", f"session.{name}")))


async def check(rows, ask, skip=()):
    for row in rows:
        if row.name in skip:
            continue
        for value in row.taken:
            answer = await ask(row.name, value)
            assert answer.status_code == 200, (row.name, value, answer.text)
        for value in row.refused:
            answer = await ask(row.name, value)
            assert answer.status_code == 400, (row.name, value, answer.text)
            error = answer.json()["error"]
            assert named(error["param"], row.name) or row.name in error["message"], (row.name, value, error)


async def test_chat_does_what_the_table_says(gateway):
    async with gateway(SAID) as g:

        async def ask(name, value):
            more = {"modalities": ["text", "audio"]} if name == "audio" else {}
            more |= {"stream": True} if name == "stream_options" else {}
            return await g.post(**{**more, name: value})

        await check(CHAT, ask)


async def test_speech_does_what_the_table_says(gateway):
    async with gateway(SAID) as g:

        async def ask(name, value):
            body = {"model": "fake", "input": "hi", "voice": "alloy", name: value}
            return await g.http.post("/v1/audio/speech", json=body)

        await check(SPEECH, ask)


async def test_transcription_does_what_the_table_says(gateway, codec):
    import base64

    from serve.sounds import recording

    file = base64.b64decode(recording(codec.decode([1, 2, 3] * 5)))
    async with gateway(SAID) as g:

        async def ask(name, value):
            # lists are written as the SDK writes them
            field = f"{name}[]" if isinstance(value, list) else name
            fields = {"model": "fake", field: value}
            return await g.http.post("/v1/audio/transcriptions", data=fields, files={"file": file})

        await check(TRANSCRIPTION, ask, skip=("file",))


async def test_sessions_do_what_the_table_says(gateway):
    async with gateway(SAID) as g, realtime(g.http._transport.app) as socket:
        for row in SESSION:
            for value in row.taken:
                await socket.send("session.update", session={"type": "realtime", row.name: value})
                await socket.until("session.updated")
            for value in row.refused:
                await socket.send("session.update", session={"type": "realtime", row.name: value})
                error = (await socket.until("error")).error
                assert named(error.param, row.name), (row.name, value, error)
        for row in CLIENT_EVENTS:
            if row.refused:
                await socket.send(row.name)
                assert row.name in (await socket.until("error")).error.message
