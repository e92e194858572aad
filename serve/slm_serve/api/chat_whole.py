"""Write a generation as one ``chat.completion``."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from typing import Any

from slm_serve.answer import Answer, Heard, Words
from slm_serve.conversation import Chat
from slm_serve.job import End, Event, Sound
from slm_serve.protocol import AnswerMessage, AudioAnswer, ChatCompletion, Choice, Extension
from slm_serve.service import Service
from slm_serve.sound_files import pack


async def whole(service: Service, chat: Chat, events: AsyncIterator[Event]) -> dict[str, Any]:
    """Return the body of the answer; ``audio`` and our extension are left out where there is none."""
    heard: str | None = None
    answer, words, samples = "", "", bytearray()
    end: End | None = None
    async for event in events:
        match event:
            case Heard(text):
                heard = text
            case Answer(text):
                answer += text
            case Words(text):
                words += text
            case Sound(piece):
                samples += piece
            case End():
                end = event
    assert end is not None, "a generation ended without an end"
    await chat.remember(service, end)
    extension = None
    if chat.job.sections or end.malformed is not None:
        extension = Extension(heard=heard, answer=(answer or None) if chat.ticket else None)
        if end.malformed is not None:
            extension.malformed = end.malformed
    audio = None
    if chat.ticket is not None and chat.request.audio is not None:
        file = await service.in_worker(pack, bytes(samples), chat.request.audio.format)
        data = base64.b64encode(file).decode("ascii")
        audio = AudioAnswer(id=chat.ticket.id, data=data, expires_at=chat.ticket.expires_at, transcript=words)
    message = AnswerMessage(content=None if audio else answer, audio=audio, slm=extension)
    body = ChatCompletion(
        id=chat.id,
        created=chat.created,
        model=chat.request.model,
        choices=[Choice(message=message, finish_reason=end.reason)],
        usage=chat.usage(end),
    )
    absent: dict[str, Any] = {name: True for name in ("audio", "slm") if getattr(message, name) is None}
    if extension is not None and extension.malformed is None:
        absent["slm"] = {"malformed"}
    return body.model_dump(mode="json", exclude={"choices": {0: {"message": absent}}})
