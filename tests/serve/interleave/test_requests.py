"""Constraints and malformed answers as clients see them, whole and streamed."""

import pytest

pytestmark = pytest.mark.anyio

HELLO = {"role": "user", "content": "hello"}
AUDIO = {"modalities": ["text", "audio"], "audio": {"voice": "alloy", "format": "pcm16"}}


async def ask(g, **more):
    answer = await g.client.chat.completions.create(model="fake", messages=[HELLO], **AUDIO, extra_body=more)
    return answer.choices[0], answer.usage


async def test_units_of_a_text_alone_answer_are_dropped(gateway):
    async with gateway("one <|1|><|2|>two<|3|><|eot_id|>") as g:
        choice, usage = await ask(g, interleave="text")
        assert g.backend.calls[0].params.constraint.mode == "text"
    assert (choice.message.audio.transcript, choice.message.audio.data) == ("one two", "")
    # they were generated, and count
    assert usage.completion_tokens_details.audio_tokens == 3


async def test_words_of_a_units_alone_answer_are_dropped(gateway):
    async with gateway("one <|1|><|2|>two<|3|><|eot_id|>") as g:
        choice, _ = await ask(g, interleave={"mode": "units"})
    assert choice.message.audio.transcript == ""
    assert choice.finish_reason == "stop"
    assert len(choice.message.audio.data) == 4 * (2 * 3 * 480) // 3


async def test_a_ratio_reaches_the_engine_and_is_kept(gateway, write):
    async with gateway("one<|1|><|2|><|3|> two<|4|><|5|><|eot_id|>") as g:
        (one,) = [len(write(word)) for word in ("one",)]
        choice, _ = await ask(g, interleave={"mode": "ratio", "ratio": [one, 2]})
        constraint = g.backend.calls[0].params.constraint
    assert (constraint.mode, constraint.n_text, constraint.n_units) == ("ratio", one, 2)
    assert choice.message.audio.transcript.startswith("one")


MALFORMED = {
    "units_before_words": "<|1|><|2|>one",
    "repeated_units": "one" + "<|1|><|2|>" * 400,
    "units_without_end": "one" + "".join(f"<|{(7 * i * i + i // 9) % 50}|>" for i in range(600)),
}


@pytest.mark.parametrize("reason", MALFORMED)
@pytest.mark.parametrize("stream", [False, True])
async def test_a_malformed_answer_ends_with_a_reason(gateway, reason, stream):
    text = MALFORMED[reason]
    async with gateway([text[:6], text[6:], "more"], hang_after=2) as g:
        if stream:
            chunks = await g.client.chat.completions.create(model="fake", messages=[HELLO], stream=True, **AUDIO)
            last = [chunk.choices[0] async for chunk in chunks][-1]
            finish, told = last.finish_reason, last.delta.slm
        else:
            choice, _ = await ask(g)
            finish, told = choice.finish_reason, choice.message.slm
        await g.backend.calls[0].ended.wait()
    assert finish == "length"
    assert told["malformed"] == reason


async def test_the_check_can_be_left_off(gateway):
    for off in ({"interleave": {"check": False}}, {"ignore_eos": True}):
        async with gateway("<|1|><|2|>one<|eot_id|>") as g:
            choice, _ = await ask(g, **off)
        assert choice.finish_reason == "stop"
        assert not hasattr(choice.message, "slm")


@pytest.mark.parametrize(
    ("wish", "param", "words"),
    [
        ("words", "interleave.mode", "'text'"),
        ({"mode": "ratio"}, "interleave", "interleave.ratio is needed"),
        ({"mode": "text", "ratio": [1, 2]}, "interleave", "only possible there"),
        ({"mode": "ratio", "ratio": [0, 2]}, "interleave.ratio[0]", "greater than or equal to 1"),
        ({"mode": "ratio", "ratio": [1, 2, 3]}, "interleave.ratio", "at most 2"),
        ({"mood": "text"}, "interleave.mood", "unknown parameter"),
    ],
)
async def test_a_constraint_that_is_none_is_refused(gateway, wish, param, words):
    async with gateway("a") as g:
        answer = await g.post(interleave=wish, **AUDIO)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == param
    assert words in answer.json()["error"]["message"]


async def test_units_for_a_written_answer_are_refused(gateway):
    async with gateway("a") as g:
        answer = await g.post(interleave="units")
    assert "modalities" in answer.json()["error"]["message"]
