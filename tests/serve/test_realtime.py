"""Realtime sessions over a real WebSocket: OpenAI's events in OpenAI's order."""

import base64
import json

import numpy as np
import pytest
import soundfile
import soxr

from serve.sockets import realtime
from slm_serve.ops.limits import Limits
from slm_serve.ops.settings import Settings

pytestmark = pytest.mark.anyio

ANSWER = "who is it?\n\nthe cat\n\nthe <|3|><|4|>cat<|5|><|eot_id|>"
MANUAL = {"type": "realtime", "audio": {"input": {"turn_detection": None}}}
HELLO = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "hello"}]}


@pytest.fixture
def app():
    return lambda g: g.http._transport.app


@pytest.fixture(scope="module")
def question(root):
    """A spoken question of 1.2 seconds, at 24 kHz."""
    wave_N, rate_hz = soundfile.read(root / "examples/tiny/audio/what_is_the_job_of_david.wav", dtype="float32")
    return soxr.resample(wave_N, rate_hz, 24_000)


def sound_of(socket) -> bytes:
    return b"".join(base64.b64decode(event.delta) for event in socket.of("response.output_audio.delta"))


async def test_a_turn_that_the_client_commits_is_answered_aloud(gateway, app, codec, vocabulary):
    async with gateway(ANSWER) as g, realtime(app(g)) as socket:
        assert socket.seen[0].type == "session.created"
        assert socket.seen[0].session.audio.input.turn_detection.type == "server_vad"
        await socket.send("session.update", session={**MANUAL, "instructions": "be kind"})
        updated = await socket.until("session.updated")
        assert (updated.session.instructions, updated.session.audio.input.turn_detection) == ("be kind", None)
        await socket.say(soxr.resample(codec.decode([1, 2, 3] * 5), 16_000, 24_000))
        await socket.send("input_audio_buffer.commit")
        await socket.send("response.create")
        done = await socket.until("response.done")
        (call,) = g.backend.calls
    # the resampler's edges may change a unit
    heard = vocabulary.units(call.ids)
    assert len(heard) == 15
    assert sum(a == b for a, b in zip(heard, [1, 2, 3] * 5, strict=True)) >= 13
    assert done.response.status == "completed"
    assert done.response.usage.output_tokens == len(call.sent)
    assert done.response.usage.output_token_details.audio_tokens == 3
    assert done.response.usage.input_token_details.audio_tokens == 15
    # three units of 20 ms at 24 kHz
    assert len(sound_of(socket)) == 2 * 3 * 480
    (words,) = socket.of("response.output_audio_transcript.done")
    assert words.transcript == "the cat"
    assert "".join(event.delta for event in socket.of("response.output_audio_transcript.delta")) == "the cat"
    order = [
        "input_audio_buffer.committed",
        "conversation.item.added",
        "conversation.item.done",
        "response.created",
        "response.output_item.added",
        "conversation.item.added",
        "response.content_part.added",
        "response.output_audio.done",
        "response.output_audio_transcript.done",
        "response.content_part.done",
        "response.output_item.done",
        "conversation.item.done",
        "response.done",
    ]
    assert [kind for kind in socket.kinds()[2:] if not kind.endswith(".delta")] == order


async def test_voice_activity_finds_the_turn_and_answers_it(gateway, app, question):
    silence = np.zeros(24_000)
    async with gateway(ANSWER) as g, realtime(app(g)) as socket:
        await socket.send("session.update", session={"type": "realtime", "audio": {"input": {"transcription": {}}}})
        await socket.say(np.concatenate([silence, question, silence]))
        done = await socket.until("response.done")
    assert done.response.status == "completed"
    (started,), (stopped,) = (
        socket.of("input_audio_buffer.speech_started"),
        socket.of("input_audio_buffer.speech_stopped"),
    )
    # speech is from 1.0 to 2.2 s; 300 ms in front of it and 500 ms of silence behind belong to the turn
    assert 600 <= started.audio_start_ms <= 900
    assert 2500 <= stopped.audio_end_ms <= 2900
    (committed,) = socket.of("input_audio_buffer.committed")
    assert started.item_id == stopped.item_id == committed.item_id
    (heard,) = socket.of("conversation.item.input_audio_transcription.completed")
    assert (heard.transcript, heard.item_id) == ("who is it?", committed.item_id)


async def test_who_speaks_over_an_answer_ends_it(gateway, app, question):
    # the engine goes on talking until it is stopped
    async with gateway(["the ", *["<|3|><|4|>"] * 30], hang_after=20) as g, realtime(app(g)) as socket:
        await socket.send("conversation.item.create", item=HELLO)
        await socket.send("response.create")
        await socket.until("response.output_audio.delta")
        assert not g.backend.calls[0].ended.is_set()
        await socket.say(np.concatenate([question, np.zeros(2400)]))
        await socket.until("input_audio_buffer.speech_started")
        kinds = socket.kinds()
        (done,) = socket.of("response.done")
        assert (done.response.status, done.response.status_details.reason) == ("cancelled", "turn_detected")
        # nothing of the answer is said once it is known that somebody speaks
        assert kinds.index("response.done") < kinds.index("input_audio_buffer.speech_started")
        await g.backend.calls[0].ended.wait()
        await socket.send("conversation.item.retrieve", item_id=done.response.output[0].id)
        kept = (await socket.until("conversation.item.retrieved")).item
    assert kept.status == "incomplete"
    assert kept.content[0].transcript == "the "


async def test_a_client_may_cancel_and_ask_again(gateway, app):
    async with gateway(["one ", "two "], "three<|eot_id|>", hang_after=1) as g, realtime(app(g)) as socket:
        await socket.send("session.update", session={**MANUAL, "output_modalities": ["text"]})
        await socket.send("conversation.item.create", item=HELLO)
        await socket.send("response.create")
        await socket.until("response.output_text.delta")
        await socket.send("response.create", event_id="mine")
        refused = await socket.until("error")
        assert (refused.error.code, refused.error.event_id) == ("conversation_already_has_active_response", "mine")
        await socket.send("response.cancel")
        done = await socket.until("response.done")
        assert (done.response.status, done.response.status_details.reason) == ("cancelled", "client_cancelled")
        g.backend.hang_after = None
        await socket.send("response.create")
        done = await socket.until("response.done")
        assert done.response.status == "completed"
        assert socket.of("response.output_text.done")[-1].text == "three"
        await socket.send("response.cancel")
        assert (await socket.until("error")).error.code == "response_cancel_not_active"


async def test_a_conversation_goes_on_with_the_exact_answer(gateway, app):
    async with gateway("the <|3|><|4|>cat<|5|><|eot_id|>", "good<|eot_id|>") as g, realtime(app(g)) as socket:
        await socket.send("session.update", session=MANUAL)
        for _ in range(2):
            await socket.send("conversation.item.create", item=HELLO)
            await socket.send("response.create")
            await socket.until("response.done")
        one, two = g.backend.calls
    assert two.ids[: len(one.ids) + len(one.sent)] == one.ids + one.sent


async def test_what_was_not_heard_is_forgotten(gateway, app, write):
    async with gateway("a <|3|><|4|>b<|5|><|6|><|eot_id|>", "good<|eot_id|>") as g, realtime(app(g)) as socket:
        await socket.send("session.update", session=MANUAL)
        await socket.send("conversation.item.create", item=HELLO)
        await socket.send("response.create")
        item = (await socket.until("response.done")).response.output[0]
        # 80 ms were said, the first half was heard
        await socket.send("conversation.item.truncate", item_id=item.id, content_index=0, audio_end_ms=40)
        await socket.until("conversation.item.truncated")
        await socket.send("conversation.item.create", item=HELLO)
        await socket.send("response.create")
        await socket.until("response.done")
        one, two = g.backend.calls
    left = write("a <|3|><|4|><|eot_id|>")
    assert two.ids[len(one.ids) :][: len(left)] == left


async def test_items_come_and_go(gateway, app):
    async with gateway("good<|eot_id|>") as g, realtime(app(g)) as socket:
        await socket.send("conversation.item.create", item={**HELLO, "id": "one"})
        await socket.send("conversation.item.create", item={**HELLO, "id": "two"}, previous_item_id="root")
        await socket.until("conversation.item.done")
        added = await socket.until("conversation.item.done")
        assert (added.item.id, added.previous_item_id) == ("two", None)
        await socket.send("conversation.item.delete", item_id="one")
        assert (await socket.until("conversation.item.deleted")).item_id == "one"
        await socket.send("conversation.item.delete", item_id="one")
        assert "no item 'one'" in (await socket.until("error")).error.message


BAD = {
    "no JSON": ("{", None, "not JSON"),
    "a list": ("[]", None, "JSON object"),
    "an unknown event": ({"type": "response.creat"}, "type", "Did you mean 'response.create'?"),
    "no type": ({}, "type", "no event of type"),
    "an unknown key": ({"type": "response.cancel", "id": 1}, "id", "unknown parameter"),
    "sound that is no base64": ({"type": "input_audio_buffer.append", "audio": "!"}, "audio", "base64"),
    "half a sample": ({"type": "input_audio_buffer.append", "audio": "AAAA"}, "audio", "odd number"),
    "an empty turn": ({"type": "input_audio_buffer.commit"}, None, "empty"),
    "tools": (
        {"type": "session.update", "session": {"type": "realtime", "tools": [{"type": "function"}]}},
        "tools",
        "at most 0 items",
    ),
    "a tracing session": ({"type": "session.update", "session": {"tracing": "auto"}}, "tracing", "not supported"),
    "noise reduction": (
        {"type": "session.update", "session": {"audio": {"input": {"noise_reduction": {"type": "near_field"}}}}},
        "audio.input.noise_reduction",
        "unknown parameter",
    ),
    "another format": (
        {"type": "session.update", "session": {"audio": {"output": {"format": {"type": "audio/pcmu"}}}}},
        "audio.output.format.type",
        "audio/pcm",
    ),
    "semantic turns": (
        {"type": "session.update", "session": {"audio": {"input": {"turn_detection": {"type": "semantic_vad"}}}}},
        "audio.input.turn_detection.type",
        "server_vad",
    ),
    "an unknown voice": (
        {"type": "session.update", "session": {"audio": {"output": {"voice": "tenor"}}}},
        "session.audio.output.voice",
        "no voice 'tenor'",
    ),
    "another model": ({"type": "session.update", "session": {"model": "x"}}, "session.model", "cannot be changed"),
    "both modalities": (
        {"type": "response.create", "response": {"output_modalities": ["text", "audio"]}},
        "output_modalities",
        "at most 1 item",
    ),
    "words of the assistant from a user": (
        {
            "type": "conversation.item.create",
            "item": {"type": "message", "role": "user", "content": [{"type": "output_text", "text": "x"}]},
        },
        "item.content[0].type",
        "not possible for user",
    ),
}


async def test_mistakes_are_told_and_the_session_goes_on(gateway, app):
    async with gateway("good<|eot_id|>") as g, realtime(app(g)) as socket:
        for name, (message, param, words) in BAD.items():
            await socket.send_raw(message if isinstance(message, str) else json.dumps(message))
            error = (await socket.until("error")).error
            assert error.param == param, (name, error)
            assert words in error.message, (name, error)
            assert error.type == "invalid_request_error", name
        await socket.send_raw(b"\xff\x00")
        assert (await socket.until("error")).error.code == "invalid_json"
        await socket.send("conversation.item.create", item=HELLO)
        await socket.send("response.create")
        assert (await socket.until("response.done")).response.status == "completed"


async def test_a_turn_holds_as_many_seconds_as_the_server_allows_a_clip(gateway, app):
    async with (
        gateway("good<|eot_id|>", settings=Settings(limits=Limits(clip_s=2.0))) as g,
        realtime(app(g)) as socket,
    ):
        await socket.send("session.update", session=MANUAL)
        await socket.say(np.zeros(36_000, np.float32))
        # 1.5 seconds are in, and these would be the second 1.5
        await socket.say(np.zeros(36_000, np.float32))
        assert (await socket.until("error")).error.message.startswith("the buffer holds 2 seconds at most")


async def test_an_unknown_model_ends_the_session_with_a_reason(gateway, app):
    async with gateway("a") as g, realtime(app(g), model="gpt-9") as socket:
        assert "no model 'gpt-9'" in socket.seen[0].error.message
        assert socket.seen[0].error.code == "model_not_found"


async def test_a_client_that_leaves_ends_the_generation(gateway, app):
    async with gateway(["one ", "two "], hang_after=1) as g:
        async with realtime(app(g)) as socket:
            await socket.send("conversation.item.create", item=HELLO)
            await socket.send("response.create")
            await socket.until("response.output_audio_transcript.delta")
        await g.backend.calls[0].ended.wait()


async def test_an_engine_that_fails_ends_the_response_and_not_the_session(gateway, app):
    from slm_plugin.errors import EngineError

    async with gateway("a", failure=EngineError("the engine is away.")) as g, realtime(app(g)) as socket:
        await socket.send("conversation.item.create", item=HELLO)
        await socket.send("response.create")
        assert (await socket.until("error")).error.message == "the engine is away."
        assert (await socket.until("response.done")).response.status == "failed"
        g.backend.failure = None
        await socket.send("response.create")
        assert (await socket.until("response.done")).response.status == "completed"
