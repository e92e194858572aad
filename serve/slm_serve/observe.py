"""Measure an answer while it passes: its first sound, its pace, its tokens."""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import TYPE_CHECKING

from slm_serve.answer import Answer, Words
from slm_serve.context import current
from slm_serve.job import End, Event, Job, Sound
from slm_serve.ops.tracing import Span
from slm_serve.voice import RATE_HZ

if TYPE_CHECKING:
    from slm_serve.service import Service

_LOG = logging.getLogger("slm_serve.observe")
_BYTES_PER_SECOND = 2 * RATE_HZ


async def observed(service: Service, job: Job, events: AsyncGenerator[Event, None]) -> AsyncGenerator[Event, None]:
    """Yield the events of an answer, and count them.

    The real-time factor is ``seconds spent making the answer / seconds of sound``; the time in which its
    reader did not ask for more is not spent making it.
    """
    context, began = current(), time.monotonic()
    arrived = began if context.is_session else context.started
    making_s, n_bytes = 0.0, 0
    has_words = has_sound = False
    with service.tracing.part("answer") as span:
        async with aclosing(events):
            while True:
                asked = time.monotonic()
                event = await anext(events, None)
                now = time.monotonic()
                making_s += now - asked
                if event is None:
                    return
                if isinstance(event, Words | Answer) and not has_words:
                    has_words = True
                    service.metrics.first_text.observe(now - arrived)
                    span.event("first text")
                elif isinstance(event, Sound):
                    n_bytes += len(event.samples)
                    if not has_sound:
                        has_sound = True
                        service.metrics.first_audio.observe(now - arrived)
                        span.event("first audio")
                elif isinstance(event, End):
                    try:
                        _count(service, job, event, making_s, n_bytes / _BYTES_PER_SECOND, span)
                    except Exception:
                        # an answer is worth more than its measurements
                        _LOG.exception("an answer could not be counted")
                yield event


def _count(service: Service, job: Job, end: End, making_s: float, sound_s: float, span: Span) -> None:
    heard = len(service.vocabulary.units(job.prompt))
    tokens = {
        "prompt_text": len(job.prompt) - heard,
        "prompt_audio": heard,
        # both count what was generated; ids are without the tokens that a constraint dropped
        "text": end.n_tokens - end.n_units,
        "audio": end.n_units,
    }
    for kind, number in tokens.items():
        service.metrics.tokens.labels(kind).inc(number)
    service.metrics.answers.labels(end.reason).inc()
    if sound_s:
        service.metrics.audio_seconds.inc(sound_s)
        service.metrics.real_time_factor.observe(making_s / sound_s)
    span.set(**tokens, finish=end.reason, audio_seconds=round(sound_s, 3), making_seconds=round(making_s, 4))
