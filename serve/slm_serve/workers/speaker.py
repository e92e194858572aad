"""Speak one answer beside its text, so that words never wait for sound."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING

from slm_serve.voice import RATE_HZ, Voice
from slm_serve.workers.pacing import Pacer

if TYPE_CHECKING:
    from slm_serve.workers.vocoder import VocoderWorker

_BYTES_PER_SECOND = 2 * RATE_HZ


class Speaker:
    """Takes the units of an answer and has one chunk of sound ready at a time.

    Until that chunk is taken no further one is made: an answer that nobody reads holds its units and one
    chunk. Made by :meth:`slm_serve.workers.vocoder.VocoderWorker.speaker`.

    Args:
        vocoder: Does the work.
        voice: Of this answer.
        rate_hz: Units per second.
        news: Set whenever there is sound to take, or the speaker has ended.
    """

    def __init__(self, vocoder: VocoderWorker, voice: Voice, rate_hz: float, news: asyncio.Event) -> None:
        self._vocoder = vocoder
        self._voice = voice
        self._news = news
        self._pacer = Pacer(rate_hz)
        self._units: deque[int] = deque()
        self._complete = False
        self._n_pushed = self._n_ready = 0
        self._wake = asyncio.Event()
        self._wanted = 1
        self._ready: bytes | None = None
        self._taken = asyncio.Event()
        self._task = asyncio.create_task(self._speak())
        self._task.add_done_callback(lambda _: news.set())

    def feed(self, units: Sequence[int]) -> None:
        """Take further units."""
        self._units.extend(units)
        if len(self._units) >= self._wanted:
            self._wake.set()

    def complete(self) -> None:
        """Say that there are no further units."""
        self._complete = True
        self._wake.set()

    def take(self) -> bytes | None:
        """Return the chunk of sound that is ready, if there is one.

        Raises:
            Exception: Whatever the vocoder raised.
        """
        ready, self._ready = self._ready, None
        if ready is not None:
            self._taken.set()
        elif self._task.done():
            self._task.result()
        return ready

    @property
    def n_spoken(self) -> int:
        """Units that the sound up to the chunk taken last was made of."""
        return self._n_ready

    @property
    def done(self) -> bool:
        """Whether all sound was taken."""
        return self._task.done() and self._ready is None

    async def stop(self) -> None:
        """Make no further sound."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _speak(self) -> None:
        last = False
        while not last:
            await self._worth_while()
            units = [self._units.popleft() for _ in range(min(len(self._units), self._pacer.most))]
            last = self._complete and not self._units
            samples = await self._vocoder.push(self._voice, units, last)
            self._n_pushed += len(units)
            if samples:
                self._pacer.sent(len(samples) / _BYTES_PER_SECOND)
                self._ready, self._n_ready = samples, self._n_pushed
                self._taken.clear()
                self._news.set()
                await self._taken.wait()

    async def _worth_while(self) -> None:
        """Wait until there is enough to say, or the listener is about to run dry."""
        loop = asyncio.get_running_loop()
        while not self._complete:
            self._wanted = self._pacer.wanted()
            if len(self._units) >= self._wanted:
                return
            self._wake.clear()
            # without a unit there is nothing that time could make urgent
            timer = loop.call_later(self._pacer.wait_s(), self._wake.set) if self._units else None
            if timer is None:
                self._wanted = 1
            await self._wake.wait()
            if timer is not None:
                timer.cancel()
