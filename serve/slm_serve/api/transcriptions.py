"""``POST /v1/audio/transcriptions``: speech in, its words out."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse, PlainTextResponse
from pydantic import BaseModel

from slm_serve.answer import Answer
from slm_serve.api.forms import read_form
from slm_serve.api.streaming import EventStream, unless_disconnected
from slm_serve.errors import RequestError
from slm_serve.generation import generate
from slm_serve.job import End, Event, Job
from slm_serve.openapi import described
from slm_serve.parsing import parse_object
from slm_serve.protocol_audio import (
    TRANSCRIPTION_UNSUPPORTED,
    Duration,
    TokenUsage,
    TranscriptDelta,
    TranscriptDone,
    Transcription,
    TranscriptionRequest,
    VerboseTranscription,
)
from slm_serve.service import Service
from slm_serve.tasks import listening

router = APIRouter()
PATH = "/v1/audio/transcriptions"


@router.post(PATH, **described(PATH, TranscriptionRequest, Transcription, "multipart/form-data"))
async def transcriptions(request: Request) -> Response:
    """Write down what a recording says."""
    service: Service = request.app.state.service
    form = await read_form(request)
    if form.file is None:
        raise RequestError("'file' is required: a recording.", "file", "missing_required_parameter")
    parsed = parse_object(TranscriptionRequest, form.fields, TRANSCRIPTION_UNSUPPORTED)
    # an unknown model is told before the recording is encoded for nothing
    await service.card(parsed.model)
    units, seconds = await unless_disconnected(request, service.encoder.units_and_seconds(form.file, "file", "file"))
    job = await listening(service, parsed, units)
    events = generate(service, job)
    if parsed.stream:
        first = await unless_disconnected(request, anext(events))
        return EventStream(_told(job, len(units), first, events), events)
    async with aclosing(events):
        text, end = await unless_disconnected(request, _whole(events))
    if parsed.response_format == "text":
        return PlainTextResponse(f"{text}\n")
    body: BaseModel
    if parsed.response_format == "verbose_json":
        language = parsed.language or "unknown"
        body = VerboseTranscription(language=language, duration=seconds, text=text, usage=Duration(seconds=seconds))
    else:
        body = Transcription(text=text, usage=_usage(job, len(units), end))
    return JSONResponse(body.model_dump())


async def _whole(events: AsyncGenerator[Event, None]) -> tuple[str, End]:
    text, end = "", None
    async for event in events:
        if isinstance(event, Answer):
            text += event.text
        elif isinstance(event, End):
            end = event
    assert end is not None, "a generation ended without an end"
    return text.strip(), end


async def _told(job: Job, n_units: int, first: Event, rest: AsyncGenerator[Event, None]) -> AsyncGenerator[str, None]:
    text, held = "", ""
    event: Event | None = first
    while event is not None:
        if isinstance(event, Answer):
            # space at the ends is not said; in between it waits for the next word
            held += event.text
            ready = held.rstrip() if text else held.strip()
            held = held[len(held.rstrip()) :] if ready else held
            if ready:
                text += ready
                yield EventStream.event(TranscriptDelta(delta=ready).model_dump())
        elif isinstance(event, End):
            done = TranscriptDone(text=text, usage=_usage(job, n_units, event))
            yield EventStream.event(done.model_dump())
        event = await anext(rest, None)


def _usage(job: Job, n_units: int, end: End) -> TokenUsage:
    return TokenUsage.count(len(job.prompt), n_units, end.n_tokens)
