"""Realtime sessions whose events come at awkward moments: cancelled at once, interrupted, first, of no known type."""

import asyncio
import base64
import json

import numpy as np
import pytest

from serve.sockets import realtime
from slm_serve.prompt import Turn
from slm_serve.realtime.listening import InputBuffer, Started, Stopped

pytestmark = pytest.mark.anyio

ANSWER = "who is it?\n\nthe cat\n\nthe <|3|><|4|>cat<|5|><|eot_id|>"
MANUAL = {"type": "realtime", "audio": {"input": {"turn_detection": None}}}
HELLO = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "hello"}]}


@pytest.fixture
def app():
    return lambda g: g.http._transport.app


def sound_of(socket) -> bytes:
    return b"".join(base64.b64decode(event.delta) for event in socket.of("response.output_audio.delta"))


async def test_a_response_that_is_cancelled_at_once_still_ends_in_one_done(gateway, app):
    async with gateway(ANSWER, ANSWER, hang_after=0) as g, realtime(app(g)) as socket:
        await socket.send("session.update", session=MANUAL)
        await socket.send("conversation.item.create", item=HELLO)
        for _ in range(5):
            # both events lie in the socket before the server takes the first
            await socket.send("response.create")
            await socket.send("response.cancel")
        for _ in range(5):
            done = await socket.until("response.done")
            assert done.response.status == "cancelled"
        await socket.send("input_audio_buffer.clear")
        await socket.until("input_audio_buffer.cleared")
        kinds = socket.kinds()
        assert kinds.count("response.created") == kinds.count("response.done") == 5
        assert "error" not in kinds


async def test_the_model_may_speak_first(gateway, app, write):
    async with gateway(ANSWER) as g, realtime(app(g)) as socket:
        await socket.send("session.update", session=MANUAL)
        await socket.send("response.create")
        done = await socket.until("response.done")
        assert done.response.status == "completed"
        (call,) = g.backend.calls
    # an empty user turn, then the header of the answer
    empty = g.service.prompts.build([Turn("user", ("",))])
    assert list(call.ids) == empty


@pytest.mark.parametrize("kind", [[], {}, 1, None, True, "", "response", "x" * 5000])
async def test_an_event_of_no_known_type_is_an_error_and_the_session_goes_on(gateway, app, kind):
    async with gateway("a") as g, realtime(app(g)) as socket:
        await socket.send_raw(json.dumps({"type": kind}))
        error = await socket.until("error")
        assert error.error.param == "type"
        await socket.send("input_audio_buffer.clear")
        await socket.until("input_audio_buffer.cleared")


async def test_a_chat_template_that_fails_on_a_conversation_is_an_error_and_no_end(gateway, app, monkeypatch):
    async with gateway(ANSWER) as g, realtime(app(g)) as socket:
        monkeypatch.setattr(g.service.tokenizer, "chat_template", "{{ messages[7].content }}")
        await socket.send("session.update", session=MANUAL)
        await socket.send("conversation.item.create", item=HELLO)
        await socket.send("response.create")
        assert "chat template refuses" in (await socket.until("error")).error.message
        await socket.send("input_audio_buffer.clear")
        await socket.until("input_audio_buffer.cleared")


async def test_an_interrupted_answer_is_remembered_as_far_as_its_sound_was_sent(gateway, app, write, monkeypatch):
    # the engine has made everything long before the vocoder has spoken it
    units = "".join(f"<|{n % 50}|>" for n in range(40))
    async with gateway(f"a {units}<|eot_id|>", "good<|eot_id|>") as g, realtime(app(g)) as socket:
        push, pushed, sent = g.service.vocoder.push, [], []

        async def slow(voice, units, last=False):
            if sent:
                await asyncio.sleep(60)
            pushed.extend(units)
            samples = await push(voice, units, last)
            sent.append(samples)
            # the resampler's first samples take a few units
            if not samples:
                sent.clear()
            return samples

        monkeypatch.setattr(g.service.vocoder, "push", slow)
        await socket.send("session.update", session=MANUAL)
        await socket.send("conversation.item.create", item=HELLO)
        await socket.send("response.create")
        await socket.until("response.output_audio.delta")
        while not g.backend.calls[0].ended.is_set():
            await asyncio.sleep(0.001)
        await socket.send("response.cancel")
        item = (await socket.until("response.done")).response.output[0]
        monkeypatch.setattr(g.service.vocoder, "push", push)
        n_ms = 1000 * len(sound_of(socket)) / (2 * 24_000)
        # half of what was sent was heard; OpenAI's clients count what they played
        event = {"item_id": item.id, "content_index": 0, "audio_end_ms": int(n_ms / 2)}
        await socket.send("conversation.item.truncate", **event)
        await socket.until("conversation.item.truncated")
        await socket.send("conversation.item.create", item=HELLO)
        await socket.send("response.create")
        await socket.until("response.done")
        one, two = g.backend.calls
    remembered = [i for i in two.ids[len(one.ids) :] if g.service.vocabulary.is_unit(i)]
    assert len(remembered) == int(len(pushed) * int(n_ms / 2) / n_ms)
    assert 0 < len(remembered) < len(pushed) < 40


async def test_a_second_turn_of_the_same_sound_is_heard_although_the_first_was_refused(gateway, app, monkeypatch):
    async with gateway(ANSWER, ANSWER, hang_after=0) as g, realtime(app(g)) as socket:
        detection = {"type": "server_vad", "interrupt_response": False, "create_response": True}
        await socket.send(
            "session.update", session={"type": "realtime", "audio": {"input": {"turn_detection": detection}}}
        )
        await socket.until("session.updated")
        await socket.send("conversation.item.create", item=HELLO)
        await socket.send("response.create")
        await socket.until("response.created")
        sound = b"".join(np.full(24_000, 1000, "<i2").tobytes() for _ in range(1))

        async def two_turns(self, samples):
            return [Started(0), Stopped(500, sound), Started(600), Stopped(1000, sound)]

        monkeypatch.setattr(InputBuffer, "append", two_turns)
        await socket.send("input_audio_buffer.append", audio=base64.b64encode(sound).decode())
        # an answer is under way, so neither turn is answered; both are in the conversation
        for _ in range(2):
            assert (await socket.until("error")).error.code == "conversation_already_has_active_response"
        assert socket.kinds().count("input_audio_buffer.committed") == 2
        assert socket.kinds().count("input_audio_buffer.speech_started") == 2
