"""``POST /v1/audio/speech``: text in; sound out, as a file that grows or as events."""

from __future__ import annotations

import base64
from collections.abc import AsyncGenerator

from fastapi import APIRouter, Request, Response

from slm_serve.api.streaming import ByteStream, EventStream, unless_disconnected
from slm_serve.errors import RequestError
from slm_serve.generation import generate
from slm_serve.job import End, Event, Job, Sound
from slm_serve.openapi import described
from slm_serve.parsing import parse_json, read_body
from slm_serve.protocol_audio import SPEECH_UNSUPPORTED, SpeechDelta, SpeechDone, SpeechRequest, TokenUsage
from slm_serve.service import Service
from slm_serve.sound_files import MEDIA_TYPES, SoundFile, make_encoder, require_encoder
from slm_serve.tasks import speaking

router = APIRouter()
PATH = "/v1/audio/speech"

Piece = bytes | End


@router.post(PATH, **described(PATH, SpeechRequest))
async def speech(request: Request) -> Response:
    """Say a text; the first bytes leave with the first chunk of sound."""
    service: Service = request.app.state.service
    parsed = await service.in_worker(parse_json, SpeechRequest, await read_body(request), SPEECH_UNSUPPORTED)
    require_encoder(parsed.response_format, "response_format")
    job = await speaking(service, parsed)
    events = generate(service, job)
    pieces = _pieces(service, events, parsed.response_format)
    # what fails before the first sound still has a status of its own
    first = await unless_disconnected(request, anext(pieces))
    if isinstance(first, End):
        raise RequestError("the model had nothing to say to this input.", "input", "no_speech")
    if parsed.stream_format == "sse":
        return EventStream(_told(job, first, pieces), pieces, events)
    return ByteStream(_bare(first, pieces), MEDIA_TYPES[parsed.response_format], pieces, events)


async def _pieces(service: Service, events: AsyncGenerator[Event, None], form: str) -> AsyncGenerator[Piece, None]:
    """Give the bytes of the file as they are final, then the end; an answer without sound has no bytes."""
    file: SoundFile = await service.in_worker(make_encoder, form)
    spoken = False
    async for event in events:
        if isinstance(event, Sound):
            spoken = True
            if data := await service.in_worker(file.push, event.samples):
                yield data
        elif isinstance(event, End):
            if spoken and (data := await service.in_worker(file.finish)):
                yield data
            yield event


async def _bare(first: bytes, rest: AsyncGenerator[Piece, None]) -> AsyncGenerator[bytes, None]:
    yield first
    async for piece in rest:
        if isinstance(piece, bytes):
            yield piece


async def _told(job: Job, first: bytes, rest: AsyncGenerator[Piece, None]) -> AsyncGenerator[str, None]:
    piece: Piece | None = first
    while piece is not None:
        if isinstance(piece, End):
            usage = TokenUsage.count(len(job.prompt), 0, piece.n_tokens)
            yield EventStream.event(SpeechDone(usage=usage).model_dump())
        else:
            data = base64.b64encode(piece).decode("ascii")
            yield EventStream.event(SpeechDelta(audio=data).model_dump())
        piece = await anext(rest, None)
