"""A parsed chat request becomes a job: recordings are encoded, the prompt built, the limits set."""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass

from slm_serve.backends.protocol import SamplingParams
from slm_serve.errors import RequestError
from slm_serve.history import Ticket
from slm_serve.interleave.constraint import Constraint
from slm_serve.job import End, Job
from slm_serve.prompt import Ids, Turn, room
from slm_serve.protocol import AssistantMessage, AudioPart, ChatRequest, Message, SystemMessage, TextPart, Usage
from slm_serve.service import Service
from slm_serve.sound_files import require_encoder

DEFAULT_MAX_TOKENS = 1024
"""Longest answer where neither the request nor the engine sets a limit."""


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

    async def remember(self, service: Service, end: End) -> None:
        """Keep a spoken answer, so that a later request can refer to it."""
        if self.ticket is not None:
            # the chat template puts the end of the turn behind it again
            ids = end.ids[:-1] if end.ids[-1:] == [service.end_id] else end.ids
            await service.history.remember(self.ticket, ids)

    def usage(self, end: End) -> Usage:
        """Return the tokens used."""
        return Usage.count(len(self.job.prompt), self.prompt_audio, end.n_tokens, end.n_units)


async def prepare(service: Service, request: ChatRequest) -> Chat:
    """Turn a parsed request into a job.

    Raises:
        RequestError: Something in it cannot be used.
        EngineError: The engine is away.
    """
    card = await service.card(request.model)
    voice = None
    if request.audio is not None:
        voice = service.voice(request.audio.voice, "audio.voice")
        require_encoder(request.audio.format, "audio.format")
    constraint = _constraint(request)
    reading = Reading(service, card.context)
    turns = [await _turn(reading, message, f"messages[{at}]") for at, message in enumerate(request.messages)]
    prompt = await service.in_worker(service.prompts.build, turns, card.context)
    wish = request.max_completion_tokens or request.max_tokens
    limits = [limit for limit in (wish, room(card.context, len(prompt))) if limit is not None]
    params = SamplingParams(
        max_tokens=min(limits, default=DEFAULT_MAX_TOKENS),
        temperature=request.temperature,
        top_p=request.top_p,
        top_k=request.top_k,
        seed=request.seed,
        frequency_penalty=request.frequency_penalty,
        presence_penalty=request.presence_penalty,
        ignore_eos=request.ignore_eos,
        stop_token_ids=() if request.ignore_eos else (service.end_id,),
        constraint=constraint,
    )
    job = Job(
        prompt,
        params,
        request.model,
        sections=_is_spoken(request.messages),
        speech=request.speech,
        stops=request.stop,
        voice=voice,
        constraint=constraint,
        check_form=request.interleave.check and not request.ignore_eos,
    )
    return Chat(
        request,
        job,
        prompt_audio=len(service.vocabulary.units(prompt)),
        ticket=await service.history.issue() if request.speech else None,
        id=f"chatcmpl-{uuid.uuid4().hex}",
        created=int(time.time()),
    )


class Reading:
    """Reads the recordings of one request; their tokens and their seconds are added up and bounded.

    Silence folds to a single unit, so tokens alone do not bound the work of the encoder.

    Args:
        service: What encodes.
        context: Most tokens of prompt and answer together; None if it is not known.
        param: What the request calls the conversation.
    """

    def __init__(self, service: Service, context: int | None, param: str = "messages") -> None:
        self._service = service
        self._context = context
        self._param = param
        self._n_tokens = 0
        self._seconds = 0.0

    async def recording(self, data: str, form: str, param: str) -> Ids:
        """Return the unit tokens of a recording; see :meth:`slm_serve.workers.encoder.EncoderWorker.units`.

        Raises:
            RequestError: It cannot be read, or there is no room for it.
        """
        units, seconds = await self._service.encoder.units_and_seconds(data, form, param)
        self._seconds += seconds
        most = self._service.limits.request_audio_s
        if self._seconds > most:
            text = f"{param}: the recordings of one request may last {most:g} seconds together."
            raise RequestError(text, param, "invalid_audio")
        return self._counted(self._service.vocabulary.ids(units))

    async def earlier(self, audio_id: str, param: str) -> Ids:
        """Return the tokens of an earlier spoken answer.

        Raises:
            RequestError: There is no such answer, or no room for it.
            EngineError: The store is away.
        """
        return self._counted(await self._service.history.recall(audio_id, param))

    def _counted(self, ids: Sequence[int]) -> Ids:
        self._n_tokens += len(ids)
        # before the next recording is encoded for nothing
        room(self._context, self._n_tokens, self._param)
        return Ids(tuple(ids))


async def _turn(reading: Reading, message: Message, where: str) -> Turn:
    if isinstance(message, AssistantMessage):
        if message.audio is not None:
            return Turn("assistant", (await reading.earlier(message.audio.id, f"{where}.audio.id"),))
        return Turn("assistant", tuple(part.text for part in message.content or ()))
    if isinstance(message, SystemMessage):
        return Turn("system", tuple(part.text for part in message.content))
    parts: list[str | Ids] = []
    for position, part in enumerate(message.content):
        if isinstance(part, TextPart):
            parts.append(part.text)
        else:
            recording, param = part.input_audio, f"{where}.content[{position}].input_audio"
            parts.append(await reading.recording(recording.data, recording.format, f"{param}.data"))
    return Turn("user", tuple(parts))


def _constraint(request: ChatRequest) -> Constraint | None:
    wish = request.interleave
    if wish.mode == "free":
        return None
    if wish.mode != "text" and not request.speech:
        text = f'interleave mode {wish.mode!r} needs modalities ["text", "audio"].'
        raise RequestError(text, "interleave", "invalid_value")
    n_text, n_units = wish.ratio or (0, 0)
    return Constraint(wish.mode, n_text, n_units)


def _is_spoken(messages: list[Message]) -> bool:
    """Tell whether the turn to answer holds a recording: its answer begins with what was heard."""
    last = messages[-1]
    return last.role == "user" and any(isinstance(part, AudioPart) for part in last.content)
