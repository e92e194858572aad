"""Text and recordings without end: bytes are checked before tokens, totals are running totals."""

import base64
import io
import json

import numpy as np
import pytest
import soundfile
import websockets

from slm_serve.backends.fake import FakeBackend
from slm_serve.errors import RequestError
from slm_serve.ops.limits import Limits
from slm_serve.prompt import Ids, PromptBuilder, Turn
from slm_serve.realtime import conversation
from slm_serve.realtime.conversation import Conversation, Item

pytestmark = pytest.mark.anyio


class Counting:
    """A tokenizer that counts the characters it was given."""

    def __init__(self, tokenizer):
        self._tokenizer = tokenizer
        self.n_characters = 0

    def __call__(self, text, **options):
        self.n_characters += len(text)
        return self._tokenizer(text, **options)

    def __getattr__(self, name):
        return getattr(self._tokenizer, name)


def test_two_megabytes_of_text_are_refused_when_the_context_is_full(tokenizer, vocabulary):
    counting = Counting(tokenizer)
    with pytest.raises(RequestError, match="the model's context is 512") as told:
        PromptBuilder(counting, vocabulary).build([Turn("user", ("word " * 400_000,))], 512)
    assert told.value.code == "context_length_exceeded"
    # one slice of 32 Ki characters, not two million
    assert counting.n_characters <= 2**15


def test_long_text_that_fits_is_built_as_ever(tokenizer, vocabulary):
    turns = [Turn("user", ("word " * 20_000, Ids((vocabulary.first_id,)), "end"))]
    prompts = PromptBuilder(tokenizer, vocabulary)
    assert prompts.build(turns, 10**6) == prompts.build(turns)


@pytest.mark.parametrize("n_parts", [1, 50])
def test_units_and_text_count_together(tokenizer, vocabulary, n_parts):
    ids = Ids(tuple([vocabulary.first_id] * (400 // n_parts)))
    text = "word " * (40_000 // n_parts)
    n_text = len(tokenizer("word " * 40_000)["input_ids"])
    turns = [Turn("user", (text, ids) * n_parts)]
    with pytest.raises(RequestError):
        PromptBuilder(tokenizer, vocabulary).build(turns, n_text)


def silence(seconds: float) -> str:
    file = io.BytesIO()
    soundfile.write(file, np.zeros(int(16_000 * seconds), np.float32), 16_000, format="FLAC")
    return base64.b64encode(file.getvalue()).decode()


async def test_clips_of_one_message_are_not_all_encoded_once_there_is_no_room(live, vocabulary, codec):
    encoded = []
    encode = codec.encode

    def counted(wave_N):
        encoded.append(len(wave_N))
        return encode(wave_N)

    codec.encode = counted
    part = {"type": "input_audio", "input_audio": {"data": silence(1.0), "format": "flac"}}
    try:
        # a second is 50 units, so ten clips fill the context
        async with live(backend=FakeBackend([[[0]]], context=512)) as g:
            answer = await g.ask(messages=[{"role": "user", "content": [part] * 300}])
            assert answer.json()["error"]["code"] == "context_length_exceeded"
            assert len(encoded) <= 12
    finally:
        codec.encode = encode


async def test_recordings_of_one_request_are_bounded_in_seconds_too(live):
    part = {"type": "input_audio", "input_audio": {"data": silence(0.9), "format": "flac"}}
    async with live(backend=FakeBackend([[[0]]], context=10**9), limits=Limits(clip_s=1.0)) as g:
        answer = await g.ask(messages=[{"role": "user", "content": [part] * 20}])
        assert answer.status_code == 400
        assert "5 seconds together" in answer.json()["error"]["message"]


def test_a_conversation_is_bounded_in_items_and_in_bytes(monkeypatch):
    monkeypatch.setattr(conversation, "MOST_ITEMS", 3)
    monkeypatch.setattr(conversation, "MOST_BYTES", 100)
    items = Conversation()

    def item(name, text):
        return Item(name, "user", (text,), [])

    items.add(item("a", "x" * 60))
    with pytest.raises(RequestError, match="full") as told:
        items.add(item("b", "x" * 60))
    assert told.value.code == "conversation_full"
    items.remove("a")
    items.add(item("b", "x" * 60))
    items.replace(item("b", "x"))
    # 1 + 4 * 20 bytes
    items.add(Item("c", "user", (Ids((1,) * 20),), []))
    items.add(item("d", ""))
    with pytest.raises(RequestError, match="3 items"):
        items.add(item("e", ""))


async def test_a_session_takes_no_items_without_end(live):
    text = "word " * 100_000
    event = {"type": "conversation.item.create"}
    async with live("a") as g, websockets.connect("ws://{}:{}/v1/realtime?model=fake".format(*g.address)) as socket:
        await socket.recv()
        kinds = []
        for _ in range(12):
            content = [{"type": "input_text", "text": text}]
            await socket.send(json.dumps({**event, "item": {"type": "message", "role": "user", "content": content}}))
            answer = json.loads(await socket.recv())
            kinds.append(answer["type"])
            if answer["type"] != "error":
                # item.done
                await socket.recv()
        # eight times 500 kB are 4 MB
        assert kinds == ["conversation.item.added"] * 8 + ["error"] * 4
