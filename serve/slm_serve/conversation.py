"""A parsed chat request becomes a job: recordings are encoded, the prompt built, the limits set."""

from __future__ import annotations

import time
import uuid
from dataclasses import dataclass

from slm_serve.backends.protocol import SamplingParams
from slm_serve.errors import RequestError
from slm_serve.history import Ticket
from slm_serve.interleave.constraint import Constraint
from slm_serve.job import End, Job
from slm_serve.prompt import Ids, Turn
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
    turns: list[Turn] = []
    for position, message in enumerate(request.messages):
        turns.append(await _turn(service, message, f"messages[{position}]"))
        # before the next recording is encoded for nothing
        room(card.context, sum(len(part.ids) for turn in turns for part in turn.parts if isinstance(part, Ids)))
    prompt = await service.in_worker(service.prompts.build, turns)
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
        ticket=service.history.issue() if request.speech else None,
        id=f"chatcmpl-{uuid.uuid4().hex}",
        created=int(time.time()),
    )


def room(context: int | None, n_tokens: int, param: str = "messages") -> int | None:
    """Return how many tokens a context has left; None where it is not known.

    Args:
        context: Most tokens of prompt and answer together.
        n_tokens: Of the prompt, as far as it is known.
        param: What fills it, for messages.

    Raises:
        RequestError: Nothing is left.
    """
    if context is not None and n_tokens >= context:
        raise RequestError(
            f"{param}: these are {n_tokens} tokens or more, the model's context is {context}.",
            param,
            "context_length_exceeded",
        )
    return None if context is None else context - n_tokens


async def _turn(service: Service, message: Message, where: str) -> Turn:
    if isinstance(message, AssistantMessage):
        if message.audio is not None:
            return Turn("assistant", (Ids(await service.history.recall(message.audio.id, f"{where}.audio.id")),))
        return Turn("assistant", tuple(part.text for part in message.content or ()))
    if isinstance(message, SystemMessage):
        return Turn("system", tuple(part.text for part in message.content))
    parts: list[str | Ids] = []
    for position, part in enumerate(message.content):
        if isinstance(part, TextPart):
            parts.append(part.text)
        else:
            recording, param = part.input_audio, f"{where}.content[{position}].input_audio"
            units = await service.encoder.units(recording.data, recording.format, f"{param}.data")
            parts.append(Ids(tuple(service.vocabulary.ids(units))))
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
