"""One answer from prompt to pieces: the engine's ids are split, parsed and spoken as they arrive."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator, Sequence

import anyio

from slm_plugin.generation.thought import ThoughtFilter
from slm_serve.answer import Answer, AnswerParser, Heard, Piece, Voice, Words
from slm_serve.backends.protocol import FinishReason
from slm_serve.interleave.constraint import Dropper
from slm_serve.interleave.form import FormCheck, Malformed
from slm_serve.job import End, Event, Job, Sound
from slm_serve.observe import observed
from slm_serve.reading import Reader
from slm_serve.service import Service
from slm_serve.splitter import Splitter
from slm_serve.stop import StopScanner


def generate(service: Service, job: Job, ids: list[int] | None = None) -> AsyncGenerator[Event, None]:
    """Generate an answer; closing the iterator ends the work in the engine and the vocoder.

    Words leave as they are made; sound follows them as it is ready.

    Args:
        service: What generates and speaks.
        job: What to generate.
        ids: Gets the ids of the answer as they come, for callers who may not see its end.

    Yields:
        Events; words among each other and sounds among each other are in the order of the answer, and
        ``End`` is the last.
    """
    return observed(service, job, _events(service, job, [] if ids is None else ids))


async def _events(service: Service, job: Job, ids: list[int]) -> AsyncGenerator[Event, None]:
    news = asyncio.Event()
    text = _Text(service, job, ids)
    engine = Reader(service.backend.generate(job.prompt, job.params, job.model), news)
    speaker = service.vocoder.speaker(job.voice, news) if job.speech else None
    try:
        finished = False
        while not (finished and (speaker is None or speaker.done)):
            await news.wait()
            news.clear()
            delta = None if finished else engine.take()
            if delta is not None:
                for event in text.feed(delta.ids):
                    yield event
                text.reason = delta.finish_reason or text.reason
            if not finished and (engine.done or text.done):
                finished = True
                await engine.stop()
                for event in text.finish():
                    yield event
            if speaker is not None:
                speaker.feed(text.take_units())
                if finished:
                    speaker.complete()
                if samples := speaker.take():
                    yield Sound(samples, speaker.n_spoken)
        yield text.end()
    finally:
        # cancelled again while it closes its connection, the reader would leave the engine at work
        with anyio.CancelScope(shield=True):
            await engine.stop()
            if speaker is not None:
                await speaker.stop()


class _Text:
    """Everything about an answer but its sound: what its ids mean, and whether it is over."""

    def __init__(self, service: Service, job: Job, ids: list[int]) -> None:
        self._job = job
        self._thought = ThoughtFilter(service.tokenizer)
        self._splitter = Splitter(service.tokenizer, service.vocabulary)
        self._dropper = Dropper(job.constraint, service.vocabulary.is_unit, self._splitter.special)
        self._parser = AnswerParser(job.sections, job.speech)
        self._stops = StopScanner(job.stops)
        units_alone = job.constraint is not None and job.constraint.mode == "units"
        self._form = FormCheck(service.codec.rate_hz, words_first=not units_alone)
        self._malformed: Malformed | None = None
        self._is_unit = service.vocabulary.is_unit
        self._ids = ids
        self._units: list[int] = []
        self._n_tokens, self._n_units = 0, 0
        self._most_units = service.limits.units
        self._stopped = False
        self.reason: FinishReason = "stop"

    @property
    def done(self) -> bool:
        """Whether nothing that the engine may add matters."""
        return self._parser.done or self._stops.found or self._malformed is not None or self._is_too_long

    @property
    def _is_too_long(self) -> bool:
        return self._n_units >= self._most_units

    def feed(self, ids: Sequence[int]) -> Iterator[Heard | Answer | Words]:
        """Take further ids; give the events that they make."""
        self._n_tokens += len(ids)
        self._n_units += sum(map(self._is_unit, ids))
        yield from self._answer(self._thought.feed(ids))

    def _answer(self, ids: Sequence[int]) -> Iterator[Heard | Answer | Words]:
        kept = self._dropper.feed(ids)
        self._ids += kept
        for run in self._splitter.feed(kept):
            yield from self._events(self._parser.feed(run))

    def finish(self) -> Iterator[Heard | Answer | Words]:
        """Give the events that were held back."""
        yield from self._answer(self._thought.finish())
        for run in self._splitter.finish():
            yield from self._events(self._parser.feed(run))
        self._stopped = self._parser.done
        yield from self._events(self._parser.finish())
        if text := self._stops.finish():
            yield Words(text) if self._job.speech else Answer(text)

    def take_units(self) -> list[int]:
        """Return the units that came since the last call."""
        units, self._units = self._units, []
        return units

    def end(self) -> End:
        """Return the last event."""
        reason = self.reason
        if self._malformed is not None:
            reason = "length"
        elif self._stopped or self._stops.found:
            reason = "stop"
        elif self._is_too_long:
            reason = "length"
        return End(reason, self._ids, self._n_units, self._n_tokens, self._malformed)

    def _events(self, pieces: Sequence[Piece]) -> Iterator[Heard | Answer | Words]:
        for piece in pieces:
            if self._stops.found or self._malformed is not None:
                return
            if isinstance(piece, Voice):
                self._speak(piece.units)
            elif isinstance(piece, Words) or (isinstance(piece, Answer) and not self._job.speech):
                if isinstance(piece, Words):
                    self._form.words(piece.text)
                if text := self._stops.feed(piece.text):
                    yield type(piece)(text)
            else:
                yield piece

    def _speak(self, units: tuple[int, ...]) -> None:
        n_good = len(units)
        if self._job.check_form:
            n_good, self._malformed = self._form.units(units)
        self._units += units[:n_good]
