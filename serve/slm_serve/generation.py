"""One answer from prompt to pieces: the engine's ids are split, parsed and spoken as they arrive."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass

import anyio

from slm_serve.answer import Answer, AnswerParser, Heard, Piece, Voice, Words
from slm_serve.backends.protocol import Delta, FinishReason, SamplingParams
from slm_serve.service import Service
from slm_serve.splitter import Splitter
from slm_serve.stop import StopScanner
from slm_serve.voice import Voice as Speaker


@dataclass(frozen=True)
class Job:
    """What to generate.

    Attributes:
        prompt: Token ids.
        params: How to sample.
        model: Name that the engine knows.
        sections: Whether the question was spoken, so that the answer has sections.
        speech: Whether the answer is to be spoken.
        stops: Stop strings in the visible words.
    """

    prompt: list[int]
    params: SamplingParams
    model: str
    sections: bool
    speech: bool
    stops: Sequence[str] = ()


@dataclass(frozen=True)
class Sound:
    """Samples of the answer, pcm16 at :data:`slm_serve.voice.RATE_HZ`."""

    samples: bytes


@dataclass(frozen=True)
class End:
    """The answer is complete.

    Attributes:
        reason: Why it ended.
        ids: All generated token ids.
        n_units: How many of them are units.
    """

    reason: FinishReason
    ids: list[int]
    n_units: int


Event = Heard | Answer | Words | Sound | End


async def generate(service: Service, job: Job) -> AsyncGenerator[Event, None]:
    """Generate an answer; closing the iterator ends the work in the engine.

    Yields:
        Events in the order of the answer; ``End`` is the last.
    """
    splitter = Splitter(service.tokenizer, service.vocabulary)
    parser = AnswerParser(job.sections, job.speech)
    stops = StopScanner(job.stops)
    speaker = Speaker(service.codec) if job.speech else None
    ids: list[int] = []
    reason: FinishReason = "stop"

    async def events_of(pieces: Sequence[Piece]) -> list[Event]:
        events: list[Event] = []
        for piece in pieces:
            if stops.found:
                break
            if isinstance(piece, Voice):
                assert speaker is not None, "units reached a written answer"
                if samples := await service.in_worker(speaker.push, piece.units):
                    events.append(Sound(samples))
            elif isinstance(piece, Words) or (isinstance(piece, Answer) and speaker is None):
                if text := stops.feed(piece.text):
                    events.append(type(piece)(text))
            else:
                events.append(piece)
        return events

    async with aclosing(_merged(service.backend.generate(job.prompt, job.params, job.model))) as deltas:
        async for delta in deltas:
            ids += delta.ids
            reason = delta.finish_reason or reason
            for run in splitter.feed(delta.ids):
                for event in await events_of(parser.feed(run)):
                    yield event
            if parser.done or stops.found:
                break
    for run in splitter.finish():
        for event in await events_of(parser.feed(run)):
            yield event
    stopped = parser.done
    for event in await events_of(parser.finish()):
        yield event
    if text := stops.finish():
        yield Words(text) if job.speech else Answer(text)
    if speaker is not None and (samples := await service.in_worker(speaker.finish)):
        yield Sound(samples)
    yield End("stop" if stopped or stops.found else reason, ids, splitter.n_units)


async def _merged(upstream: AsyncGenerator[Delta, None]) -> AsyncGenerator[Delta, None]:
    """Read the engine without waiting for the speaker; deltas that pile up meanwhile become one."""
    waiting: list[Delta] = []
    news = asyncio.Event()

    async def read() -> None:
        try:
            async with aclosing(upstream):
                async for delta in upstream:
                    waiting.append(delta)
                    news.set()
        finally:
            news.set()

    reader = asyncio.create_task(read())
    try:
        while True:
            await news.wait()
            news.clear()
            if waiting:
                batch, waiting[:] = list(waiting), []
                yield Delta([i for delta in batch for i in delta.ids], batch[-1].finish_reason)
            elif reader.done():
                # raises what the engine raised
                await reader
                return
            if reader.done():
                news.set()
    finally:
        reader.cancel()
        # cancelled again while it closes its connection, the reader would leave the engine at work
        with anyio.CancelScope(shield=True):
            await asyncio.gather(reader, return_exceptions=True)
