"""``POST /v1/chat/completions``: text and speech in, text and speech out, whole or streamed."""

from __future__ import annotations

import base64
import time
import uuid
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse

from slm_serve import encoder
from slm_serve.answer import Answer, Heard, Words
from slm_serve.api.streaming import EventStream, unless_disconnected
from slm_serve.backends.protocol import SamplingParams
from slm_serve.errors import RequestError
from slm_serve.generation import End, Event, Job, Sound, generate
from slm_serve.history import Ticket
from slm_serve.parsing import parse_json, read_body
from slm_serve.prompt import Ids, Turn
from slm_serve.protocol import (
    UNSUPPORTED,
    AnswerMessage,
    AssistantMessage,
    AudioAnswer,
    AudioDelta,
    AudioPart,
    ChatCompletion,
    ChatCompletionChunk,
    ChatRequest,
    Choice,
    ChunkChoice,
    Delta,
    Extension,
    Message,
    SystemMessage,
    TextPart,
    Usage,
)
from slm_serve.service import Service
from slm_serve.voice import pack

router = APIRouter()


@dataclass(frozen=True)
class Chat:
    """A request that is ready to be answered.

    Attributes:
        request: As it was parsed.
        job: What to generate.
        prompt_audio: How many tokens of the prompt are units.
        ticket: What the spoken answer may be referred to by; None for a written one.
        id: Of the completion.
        created: Unix time in seconds.
    """

    request: ChatRequest
    job: Job
    prompt_audio: int
    ticket: Ticket | None
    id: str
    created: int

    def usage(self, end: End) -> Usage:
        """Return the tokens used."""
        return Usage.count(self.job.prompt, self.prompt_audio, end.ids, end.n_units)


@router.post("/v1/chat/completions")
async def chat_completions(request: Request) -> Response:
    """Answer a conversation in OpenAI's shapes."""
    service: Service = request.app.state.service
    parsed = parse_json(ChatRequest, await read_body(request), UNSUPPORTED)
    chat = await prepare(service, parsed)
    events = generate(service, chat.job)
    if parsed.stream:
        # what fails before the first event still has a status of its own
        first = await unless_disconnected(request, anext(events))
        return EventStream(_chunks(service, chat, first, events))
    async with aclosing(events):
        answer = await unless_disconnected(request, _whole(service, chat, events))
    return JSONResponse(answer.model_dump(mode="json", exclude=_unset(answer)))


async def prepare(service: Service, request: ChatRequest) -> Chat:
    """Turn a parsed request into a job.

    Raises:
        RequestError: Something in it cannot be used.
        EngineError: The engine is away.
    """
    card = await service.card(request.model)
    turns = [await _turn(service, message, f"messages[{i}]") for i, message in enumerate(request.messages)]
    prompt = await service.in_worker(service.prompts.build, turns)
    wish = request.max_completion_tokens or request.max_tokens
    room = None if card.context is None else card.context - len(prompt)
    if room is not None and room < 1:
        raise RequestError(
            f"the messages are {len(prompt)} tokens long, the model's context is {card.context}.",
            "messages",
            "context_length_exceeded",
        )
    limits = [limit for limit in (wish, room) if limit is not None]
    params = SamplingParams(
        max_tokens=min(limits) if limits else 1024,
        temperature=request.temperature,
        top_p=request.top_p,
        top_k=request.top_k,
        seed=request.seed,
        frequency_penalty=request.frequency_penalty,
        presence_penalty=request.presence_penalty,
        ignore_eos=request.ignore_eos,
        stop_token_ids=() if request.ignore_eos else (service.end_id,),
    )
    job = Job(prompt, params, request.model, _is_spoken(request.messages), request.speech, request.stop)
    return Chat(
        request,
        job,
        prompt_audio=len(service.vocabulary.units(prompt)),
        ticket=service.history.issue() if request.speech else None,
        id=f"chatcmpl-{uuid.uuid4().hex}",
        created=int(time.time()),
    )


async def _turn(service: Service, message: Message, where: str) -> Turn:
    if isinstance(message, AssistantMessage):
        if message.audio is not None:
            return Turn("assistant", (Ids(service.history.recall(message.audio.id, f"{where}.audio.id")),))
        return Turn("assistant", tuple(part.text for part in message.content or ()))
    if isinstance(message, SystemMessage):
        return Turn("system", tuple(part.text for part in message.content))
    parts: list[str | Ids] = []
    for position, part in enumerate(message.content):
        if isinstance(part, TextPart):
            parts.append(part.text)
        else:
            recording, param = part.input_audio, f"{where}.content[{position}].input_audio"
            units = await service.in_worker(
                encoder.units_of, service.codec, recording.data, recording.format, param
            )
            parts.append(Ids(tuple(service.vocabulary.ids(units))))
    return Turn("user", tuple(parts))


def _is_spoken(messages: list[Message]) -> bool:
    """Tell whether the turn to answer holds a recording: its answer begins with what was heard."""
    last = messages[-1]
    return last.role == "user" and any(isinstance(part, AudioPart) for part in last.content)


def _remember(service: Service, chat: Chat, end: End) -> None:
    if chat.ticket is not None:
        # the chat template puts the end of the turn behind it again
        ids = end.ids[:-1] if end.ids[-1:] == [service.end_id] else end.ids
        service.history.remember(chat.ticket, ids)


async def _whole(service: Service, chat: Chat, events: AsyncIterator[Event]) -> ChatCompletion:
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
    _remember(service, chat, end)
    extension = Extension(heard=heard, answer=answer if chat.ticket else None) if chat.job.sections else None
    audio = None
    if chat.ticket is not None and chat.request.audio is not None:
        file = await service.in_worker(pack, bytes(samples), chat.request.audio.format)
        data = base64.b64encode(file).decode("ascii")
        audio = AudioAnswer(id=chat.ticket.id, data=data, expires_at=chat.ticket.expires_at, transcript=words)
    message = AnswerMessage(content=None if audio else answer, audio=audio, slm=extension)
    return ChatCompletion(
        id=chat.id,
        created=chat.created,
        model=chat.request.model,
        choices=[Choice(message=message, finish_reason=end.reason)],
        usage=chat.usage(end),
    )


def _unset(answer: ChatCompletion) -> dict[str, dict[int, dict[str, set[str]]]]:
    """Leave ``audio`` and our extension out of answers that have none, as OpenAI does."""
    message = answer.choices[0].message
    return {"choices": {0: {"message": {name for name in ("audio", "slm") if getattr(message, name) is None}}}}


async def _chunks(
    service: Service, chat: Chat, first: Event, rest: AsyncGenerator[Event, None]
) -> AsyncGenerator[str, None]:
    """Write the events of a stream: role, pieces, expiry of the sound, finish, usage."""
    with_usage = chat.request.stream_options is not None and chat.request.stream_options.include_usage

    def chunk(choices: list[ChunkChoice], usage: Usage | None = None) -> str:
        body = ChatCompletionChunk(
            id=chat.id, created=chat.created, model=chat.request.model, choices=choices, usage=usage
        )
        data = body.model_dump(mode="json", exclude={"choices", "usage"})
        data["choices"] = [
            choice.model_dump(mode="json", exclude={"delta"}) | {"delta": choice.delta.model_dump(exclude_unset=True)}
            for choice in choices
        ]
        if with_usage:
            data["usage"] = usage.model_dump() if usage else None
        return EventStream.event(data)

    def piece(delta: Delta) -> str:
        return chunk([ChunkChoice(delta=delta)])

    async with aclosing(rest):
        spoken = chat.ticket is not None
        yield piece(Delta(role="assistant", content=None if spoken else "", refusal=None))
        event: Event | None = first
        while event is not None:
            if isinstance(event, End):
                _remember(service, chat, event)
                if chat.ticket is not None:
                    yield piece(Delta(audio=AudioDelta(id=chat.ticket.id, expires_at=chat.ticket.expires_at)))
                yield chunk([ChunkChoice(delta=Delta(), finish_reason=event.reason)])
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
