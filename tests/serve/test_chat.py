"""Chat completions through the real client against the fake engine: OpenAI's shapes, whole and streamed."""

import base64
import io

import numpy as np
import openai
import pytest
import soundfile
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from serve.sounds import recording, spoken

pytestmark = pytest.mark.anyio

AUDIO = {"modalities": ["text", "audio"], "audio": {"voice": "alloy", "format": "wav"}}
STREAM_AUDIO = {"modalities": ["text", "audio"], "audio": {"voice": "alloy", "format": "pcm16"}, "stream": True}
SPOKEN_ANSWER = "who is it?\n\nthe cat\n\nthe <|3|><|4|>cat<|5|><|eot_id|>"
HELLO = {"role": "user", "content": "hello"}


@pytest.fixture
def question(codec):
    """A spoken question that the fake codec hears as the units 1, 2, 3."""
    return spoken(recording(codec.decode([1, 2, 3])))


async def test_a_written_chat(gateway, tokenizer):
    async with gateway("good morning<|eot_id|>") as g:
        answer = await g.client.chat.completions.create(model="fake", messages=[HELLO])
    assert isinstance(answer, ChatCompletion)
    assert answer.object == "chat.completion"
    assert answer.id.startswith("chatcmpl-")
    (choice,) = answer.choices
    assert (choice.index, choice.finish_reason) == (0, "stop")
    assert (choice.message.role, choice.message.content) == ("assistant", "good morning")
    assert choice.message.audio is None
    assert not hasattr(choice.message, "slm")
    expected = tokenizer.apply_chat_template([HELLO], add_generation_prompt=True, return_dict=False)
    assert g.backend.calls[0].ids == expected
    usage = answer.usage
    assert usage.prompt_tokens == len(expected)
    assert usage.completion_tokens == len(g.backend.calls[0].sent)
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens
    assert usage.completion_tokens_details.audio_tokens == 0


async def test_a_spoken_question_is_answered_aloud(gateway, codec, vocabulary, question, tokenizer):
    async with gateway(SPOKEN_ANSWER) as g:
        answer = await g.client.chat.completions.create(model="fake", messages=[question], **AUDIO)
    message = answer.choices[0].message
    assert message.content is None
    assert message.audio.transcript == "the cat"
    assert message.audio.id.startswith("audio_")
    assert message.audio.expires_at > answer.created
    assert message.slm == {"heard": "who is it?", "answer": "the cat"}
    wave, rate_hz = soundfile.read(io.BytesIO(base64.b64decode(message.audio.data)), dtype="float32")
    # three units of 20 ms
    assert (rate_hz, len(wave)) == (24_000, 1440)
    assert np.abs(wave).max() == pytest.approx(0.3, abs=0.05)
    assert answer.usage.completion_tokens_details.audio_tokens == 3
    assert answer.usage.prompt_tokens_details.audio_tokens == 3
    trained = [{"role": "user", "content": "<|1|><|2|><|3|>"}]
    assert g.backend.calls[0].ids == tokenizer.apply_chat_template(
        trained, add_generation_prompt=True, return_dict=False
    )


async def test_a_spoken_question_is_answered_in_writing_up_to_the_spoken_part(gateway, question):
    # the engine says nothing more after the blank line: nobody may wait for it
    said = "who is it?\n\nthe cat\n\n"
    async with gateway([said, "the <|3|>"], hang_after=1) as g:
        answer = await g.client.chat.completions.create(model="fake", messages=[question])
        await g.backend.calls[0].ended.wait()
    assert answer.choices[0].message.content == "the cat"
    assert answer.choices[0].finish_reason == "stop"
    assert answer.choices[0].message.slm == {"heard": "who is it?", "answer": None}
    assert answer.usage.completion_tokens == len(g.backend.calls[0].sent)


async def test_written_text_is_read_aloud(gateway):
    async with gateway("good <|3|>morning<|4|><|eot_id|>") as g:
        answer = await g.client.chat.completions.create(model="fake", messages=[HELLO], **AUDIO)
    message = answer.choices[0].message
    assert message.audio.transcript == "good morning"
    assert not hasattr(message, "slm")
    assert answer.usage.completion_tokens_details.audio_tokens == 2


async def test_a_stream_of_text(gateway):
    async with gateway("good morning<|eot_id|>") as g:
        stream = await g.client.chat.completions.create(
            model="fake", messages=[HELLO], stream=True, stream_options={"include_usage": True}
        )
        chunks = [chunk async for chunk in stream]
    assert all(isinstance(chunk, ChatCompletionChunk) and chunk.id == chunks[0].id for chunk in chunks)
    first, *middle, finish, usage = chunks
    assert (first.choices[0].delta.role, first.choices[0].delta.content) == ("assistant", "")
    assert "".join(chunk.choices[0].delta.content for chunk in middle) == "good morning"
    assert all(chunk.choices[0].finish_reason is None and chunk.usage is None for chunk in [first, *middle])
    assert (finish.choices[0].finish_reason, finish.choices[0].delta.content) == ("stop", None)
    assert usage.choices == []
    assert usage.usage.completion_tokens == len(g.backend.calls[0].sent)


async def test_a_stream_without_usage_does_not_mention_it(gateway):
    async with gateway("good morning<|eot_id|>") as g:
        response = await g.post(stream=True)
    lines = response.text.strip().split("\n\n")
    assert response.headers["content-type"].startswith("text/event-stream")
    assert lines[-1] == "data: [DONE]"
    assert "usage" not in response.text


async def test_a_stream_of_speech(gateway, question):
    # 1.2 seconds: more than a first chunk holds
    long_answer = SPOKEN_ANSWER.replace("<|5|>", "<|5|><|6|>" * 30)
    async with gateway(long_answer) as g:
        whole = await g.client.chat.completions.create(
            model="fake",
            messages=[question],
            **{**AUDIO, "audio": {"voice": "alloy", "format": "pcm16"}},
        )
        stream = await g.client.chat.completions.create(model="fake", messages=[question], **STREAM_AUDIO)
        deltas = [chunk.choices[0].delta async for chunk in stream]
    assert (deltas[0].role, deltas[0].content) == ("assistant", None)
    sounds = [delta.audio for delta in deltas if delta.audio]
    assert len({sound.id for sound in sounds}) == 1
    assert "".join(sound.transcript or "" for sound in sounds) == "the cat"
    pieces = [base64.b64decode(sound.data) for sound in sounds if sound.data]
    # units leave as they come, and together they are the whole
    assert len(pieces) > 1
    assert b"".join(pieces) == base64.b64decode(whole.choices[0].message.audio.data)
    assert sounds[-1].expires_at is not None
    assert all(sound.expires_at is None for sound in sounds[:-1])
    # role, sounds and words in order: the first word is out before the last sound is
    kinds = ["data" if sound.data else "words" for sound in sounds[:-1]]
    assert kinds.index("words") < len(kinds) - 1 - kinds[::-1].index("data")
    ours = [delta.slm for delta in deltas if hasattr(delta, "slm")]
    assert ours == [{"heard": "who is it?"}, {"answer": "the cat"}]
    assert deltas[-1].audio is None


async def test_a_stream_of_text_for_a_spoken_question_ends_with_the_answer(gateway, question):
    async with gateway(SPOKEN_ANSWER) as g:
        stream = await g.client.chat.completions.create(model="fake", messages=[question], stream=True)
        chunks = [chunk async for chunk in stream]
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "the cat"
    assert [chunk.choices[0].delta.slm for chunk in chunks if hasattr(chunk.choices[0].delta, "slm")] == [
        {"heard": "who is it?"}
    ]
    assert chunks[-1].choices[0].finish_reason == "stop"


async def test_an_earlier_spoken_answer_goes_back_in_exactly(gateway, question, vocabulary):
    async with gateway(SPOKEN_ANSWER, "good<|eot_id|>") as g:
        first = await g.client.chat.completions.create(model="fake", messages=[question], **AUDIO)
        await g.client.chat.completions.create(
            model="fake",
            messages=[question, {"role": "assistant", "audio": {"id": first.choices[0].message.audio.id}}, HELLO],
        )
        one, two = g.backend.calls
    # the first prompt, the very ids that were generated, and then the new turn
    assert two.ids[: len(one.ids) + len(one.sent)] == one.ids + one.sent


async def test_the_clients_own_message_can_be_sent_back(gateway, question):
    async with gateway(SPOKEN_ANSWER, "good<|eot_id|>") as g:
        first = await g.client.chat.completions.create(model="fake", messages=[question], **AUDIO)
        await g.client.chat.completions.create(
            model="fake", messages=[question, first.choices[0].message.model_dump(), HELLO]
        )
        one, two = g.backend.calls
    assert two.ids[: len(one.ids) + len(one.sent)] == one.ids + one.sent


async def test_a_streamed_answer_can_be_referred_to_as_well(gateway, question):
    async with gateway(SPOKEN_ANSWER, "good<|eot_id|>") as g:
        stream = await g.client.chat.completions.create(model="fake", messages=[question], **STREAM_AUDIO)
        ids = {chunk.choices[0].delta.audio.id async for chunk in stream if chunk.choices[0].delta.audio}
        reference = {"role": "assistant", "audio": {"id": ids.pop()}}
        await g.client.chat.completions.create(model="fake", messages=[question, reference, HELLO])
        one, two = g.backend.calls
    assert two.ids[: len(one.ids) + len(one.sent)] == one.ids + one.sent


async def test_developer_is_system(gateway):
    async with gateway("a<|eot_id|>") as g:
        await g.post(messages=[{"role": "developer", "content": "be kind"}, HELLO])
        await g.post(messages=[{"role": "system", "content": [{"type": "text", "text": "be kind"}]}, HELLO])
        one, two = g.backend.calls
    assert one.ids == two.ids


async def test_text_that_spells_units_reaches_the_engine_as_text(gateway, vocabulary, write):
    text = "<|17|> <|eot_id|>"
    parts = [{"type": "text", "text": "<|1"}, {"type": "text", "text": "7|>"}]
    async with gateway("a<|eot_id|>") as g:
        await g.post(messages=[{"role": "system", "content": text}, {"role": "user", "content": text}])
        await g.post(messages=[{"role": "user", "content": parts}, {"role": "assistant", "content": text}, HELLO])
        calls = g.backend.calls
    assert [vocabulary.units(call.ids) for call in calls] == [[], []]
    (end,) = write("<|eot_id|>")
    # one for each message, none typed
    assert [call.ids.count(end) for call in calls] == [2, 3]


@pytest.mark.parametrize("form", ["wav", "flac", "mp3", "opus", "pcm16"])
async def test_every_form_of_sound(gateway, form):
    async with gateway("a<|3|><|4|>" * 20 + "<|eot_id|>") as g:
        answer = await g.client.chat.completions.create(
            model="fake",
            messages=[HELLO],
            modalities=["text", "audio"],
            audio={"voice": {"id": "default"}, "format": form},
        )
    data = base64.b64decode(answer.choices[0].message.audio.data)
    if form == "pcm16":
        assert len(data) == 2 * 24_000 * 40 // 50
    else:
        wave, rate_hz = soundfile.read(io.BytesIO(data))
        assert (rate_hz, len(wave)) == (24_000, 24_000 * 40 // 50)


@pytest.mark.parametrize("form", ["wav", "flac", "mp3", "opus"])
async def test_an_answer_without_units_is_a_file_that_opens(gateway, form):
    audio = {"modalities": ["text", "audio"], "audio": {"voice": "echo", "format": form}}
    async with gateway("good morning<|eot_id|>") as g:
        answer = await g.client.chat.completions.create(model="fake", messages=[HELLO], **audio)
    assert answer.choices[0].message.audio.transcript == "good morning"
    data = base64.b64decode(answer.choices[0].message.audio.data)
    assert len(soundfile.read(io.BytesIO(data))[0]) <= 1


async def test_parameters_reach_the_engine(gateway, tokenizer):
    async with gateway("a<|eot_id|>", context=100) as g:
        await g.post(temperature=0, top_p=0.5, seed=0, max_tokens=7, frequency_penalty=1, presence_penalty=-1, top_k=3)
        await g.post(max_tokens=7, max_completion_tokens=5, ignore_eos=True)
        await g.post(max_tokens=None, stop=None, n=1, tools=[], logprobs=False, user="me")
        given, preferred, left = (call.params for call in g.backend.calls)
    assert (given.temperature, given.top_p, given.seed, given.max_tokens) == (0, 0.5, 0, 7)
    assert (given.frequency_penalty, given.presence_penalty, given.top_k) == (1, -1, 3)
    assert given.stop_token_ids == (tokenizer.eos_token_id,)
    assert (preferred.max_tokens, preferred.ignore_eos, preferred.stop_token_ids) == (5, True, ())
    # without a wish there is what the context leaves
    assert left.max_tokens == 100 - len(g.backend.calls[2].ids)
    assert left.temperature is None


async def test_an_answer_that_is_cut_says_so(gateway):
    async with gateway("one two three<|eot_id|>") as g:
        answer = await g.client.chat.completions.create(model="fake", messages=[HELLO], max_tokens=1)
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage.completion_tokens == 1


async def test_stop_strings_end_the_answer_and_the_generation(gateway):
    async with gateway(["one two ", "three ", "four "], hang_after=2) as g:
        answer = await g.client.chat.completions.create(model="fake", messages=[HELLO], stop=["three", "zzz"])
        await g.backend.calls[0].ended.wait()
    assert answer.choices[0].message.content == "one two "
    assert answer.choices[0].finish_reason == "stop"


async def test_a_stop_string_across_units_is_found_in_the_transcript(gateway):
    async with gateway(["one <|1|>two<|2|> th", "ree<|3|>"], hang_after=1) as g:
        answer = await g.client.chat.completions.create(model="fake", messages=[HELLO], stop="two th", **AUDIO)
        await g.backend.calls[0].ended.wait()
    assert answer.choices[0].message.audio.transcript == "one "


async def test_many_answers_at_once_do_not_mix(gateway):
    import asyncio

    texts = [f"{word} {word}" for word in ("red", "blue", "green", "one", "two", "three", "four", "five")]
    async with gateway(*[f"{text}<|3|><|eot_id|>" for text in texts]) as g:
        answers = await asyncio.gather(
            *[g.client.chat.completions.create(model="fake", messages=[HELLO], **AUDIO) for _ in texts]
        )
    assert sorted(answer.choices[0].message.audio.transcript for answer in answers) == sorted(texts)


async def test_the_engines_silence_and_failures_are_openai_errors(gateway):
    from slm_plugin.errors import EngineError

    async with gateway("a", failure=EngineError("the engine is away.")) as g:
        with pytest.raises(openai.InternalServerError) as caught:
            await g.client.chat.completions.create(model="fake", messages=[HELLO])
        assert caught.value.status_code == 503
        assert caught.value.body["message"] == "the engine is away."
        with pytest.raises(openai.InternalServerError):
            await g.client.chat.completions.create(model="fake", messages=[HELLO], stream=True)
    async with gateway("one two three", failure=EngineError("the engine is away."), fail_after=2) as g:
        stream = await g.client.chat.completions.create(model="fake", messages=[HELLO], stream=True)
        with pytest.raises(openai.APIError, match="the engine is away"):
            async for _ in stream:
                pass


async def test_our_own_mistakes_in_a_stream_are_told_without_their_details(gateway):
    async with gateway("one two three", failure=RuntimeError("secret path"), fail_after=2) as g:
        response = await g.post(stream=True)
    assert "[DONE]" not in response.text
    assert "secret" not in response.text
    assert '"type":"server_error"' in response.text


async def test_our_own_mistakes_are_500_without_their_details(gateway):
    async with gateway("a", failure=RuntimeError("secret path")) as g:
        response = await g.post()
    assert response.status_code == 500
    assert response.json()["error"]["type"] == "server_error"
    assert "secret" not in response.text


async def test_a_voice_of_the_codec_speaks_and_others_are_refused_with_the_names(gateway, monkeypatch):
    from slm_serve.fakes import FakeCodec

    asked = []

    def stream_as(self, voice):
        asked.append(voice)
        return self.stream()

    monkeypatch.setattr(FakeCodec, "voices", ("fra", "deu"), raising=False)
    monkeypatch.setattr(FakeCodec, "has_voice", lambda self, voice: voice in (*self.voices, "deu-2"), raising=False)
    monkeypatch.setattr(FakeCodec, "stream_as", stream_as, raising=False)
    async with gateway("good <|3|><|eot_id|>") as g:
        for voice in ("alloy", "deu", {"id": "deu-2"}):
            audio = {"modalities": ["text", "audio"], "audio": {"voice": voice, "format": "wav"}}
            await g.client.chat.completions.create(model="fake", messages=[HELLO], **audio)
        with pytest.raises(openai.BadRequestError, match="default, fra, deu"):
            await g.client.audio.speech.create(model="fake", voice="ita", input="hi")
    assert asked == ["deu", "deu-2"]


async def test_a_thought_is_no_part_of_the_answer(gateway):
    async with gateway("<think>\nthe cat\n\nis red\n</think>\n\ngood morning<|eot_id|>") as g:
        answer = await g.client.chat.completions.create(model="fake", messages=[HELLO])
    assert answer.choices[0].message.content == "good morning"
    assert answer.choices[0].finish_reason == "stop"


@pytest.mark.parametrize("thought", ["<think>\n\n</think>\n\n", "</think>\n\n"])
async def test_a_thought_is_not_taken_for_the_recognised_question(gateway, question, vocabulary, thought):
    async with gateway(thought + SPOKEN_ANSWER, SPOKEN_ANSWER) as g:
        answer = await g.client.chat.completions.create(model="fake", messages=[question], **AUDIO)
        message = answer.choices[0].message
        assert message.slm == {"heard": "who is it?", "answer": "the cat"}
        turns = [question, {"role": "assistant", "audio": {"id": message.audio.id}}, HELLO]
        await g.client.chat.completions.create(model="fake", messages=turns)
    # and the conversation goes on without it
    assert "think" not in g.service.tokenizer.decode(g.backend.calls[1].ids)


async def test_an_answer_inside_a_thought_is_empty(gateway):
    async with gateway("<think>\nthe cat") as g:
        answer = await g.client.chat.completions.create(model="fake", messages=[HELLO])
    assert not answer.choices[0].message.content
