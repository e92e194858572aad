"""``POST /v1/chat/completions``: text and speech in, text and speech out, whole or streamed."""

from __future__ import annotations

from contextlib import aclosing

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse

from slm_serve.api.chat_stream import chunks
from slm_serve.api.chat_whole import whole
from slm_serve.api.streaming import EventStream, unless_disconnected
from slm_serve.conversation import prepare
from slm_serve.generation import generate
from slm_serve.openapi import described
from slm_serve.parsing import parse_json, read_body
from slm_serve.protocol import UNSUPPORTED, ChatCompletion, ChatRequest
from slm_serve.service import Service

router = APIRouter()
PATH = "/v1/chat/completions"


@router.post(PATH, **described(PATH, ChatRequest, ChatCompletion))
async def chat_completions(request: Request) -> Response:
    """Answer a conversation in OpenAI's shapes."""
    service: Service = request.app.state.service
    parsed = await service.in_worker(parse_json, ChatRequest, await read_body(request), UNSUPPORTED)
    chat = await prepare(service, parsed)
    events = generate(service, chat.job)
    if parsed.stream:
        # what fails before the first event still has a status of its own
        first = await unless_disconnected(request, anext(events))
        return EventStream(chunks(service, chat, first, events), events)
    async with aclosing(events):
        return JSONResponse(await unless_disconnected(request, whole(service, chat, events)))
