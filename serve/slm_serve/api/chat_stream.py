"""Write a generation as ``chat.completion.chunk`` events."""

from __future__ import annotations

import base64
from collections.abc import AsyncGenerator

from slm_serve.answer import Answer, Heard, Words
from slm_serve.api.streaming import EventStream
from slm_serve.conversation import Chat
from slm_serve.history import Ticket
from slm_serve.job import End, Event, Sound
from slm_serve.protocol import AudioDelta, ChatCompletionChunk, ChunkChoice, Delta, Extension, Usage
from slm_serve.service import Service


async def chunks(
    service: Service, chat: Chat, first: Event, rest: AsyncGenerator[Event, None]
) -> AsyncGenerator[str, None]:
    """Write the events of a stream: role, pieces, expiry of the sound, finish, usage."""
    with_usage = chat.request.stream_options is not None and chat.request.stream_options.include_usage

    def chunk(choices: list[ChunkChoice], usage: Usage | None = None) -> str:
        body = ChatCompletionChunk(
            id=chat.id, created=chat.created, model=chat.request.model, choices=choices, usage=usage
        )
        data = body.model_dump(mode="json", exclude=None if with_usage else {"usage"})
        for written, choice in zip(data["choices"], choices, strict=True):
            written["delta"] = choice.delta.model_dump(mode="json", exclude_unset=True)
        return EventStream.event(data)

    def piece(delta: Delta) -> str:
        return chunk([ChunkChoice(delta=delta)])

    spoken = chat.ticket is not None
    yield piece(Delta(role="assistant", content=None if spoken else "", refusal=None))
    event: Event | None = first
    while event is not None:
        if isinstance(event, End):
            await chat.remember(service, event)
            if chat.ticket is not None:
                yield piece(Delta(audio=AudioDelta(id=chat.ticket.id, expires_at=chat.ticket.expires_at)))
            told = Delta() if event.malformed is None else Delta(slm=Extension(malformed=event.malformed))
            yield chunk([ChunkChoice(delta=told, finish_reason=event.reason)])
            if with_usage:
                yield chunk([], chat.usage(event))
        else:
            yield piece(_delta(event, chat.ticket))
        event = await anext(rest, None)
    yield EventStream.DONE


def _delta(event: Heard | Answer | Words | Sound, ticket: Ticket | None) -> Delta:
    if isinstance(event, Heard):
        return Delta(slm=Extension(heard=event.text))
    if isinstance(event, Answer):
        return Delta(content=event.text) if ticket is None else Delta(slm=Extension(answer=event.text))
    assert ticket is not None, "a written answer makes no sound"
    if isinstance(event, Words):
        return Delta(audio=AudioDelta(id=ticket.id, transcript=event.text))
    return Delta(audio=AudioDelta(id=ticket.id, data=base64.b64encode(event.samples).decode("ascii")))
