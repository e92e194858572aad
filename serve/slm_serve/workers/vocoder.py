"""Units of many answers become sound together: one worker for all streams of a codec."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import NamedTuple

from slm_plugin.speech.protocol import Codec, advance
from slm_serve.voice import Voice
from slm_serve.workers.batcher import Batcher
from slm_serve.workers.speaker import Speaker


class Push(NamedTuple):
    """Further units of one answer.

    Attributes:
        voice: Speaks the answer; no two pushes of one voice may be under way at once.
        units: What to say, possibly nothing.
        last: Whether the answer ends with it.
    """

    voice: Voice
    units: Sequence[int]
    last: bool


class VocoderWorker:
    """Speaks for every request.

    Args:
        codec: Makes sound of units.
        threads: Batches that run at once.
        most: Largest batch.
        waiting: Pushes that may wait.
    """

    def __init__(self, codec: Codec, threads: int = 1, most: int = 32, waiting: int = 256) -> None:
        self._codec = codec
        self.batcher: Batcher[Push, bytes] = Batcher(self._run, "slm-vocoder", threads, most, waiting)

    async def push(self, voice: Voice, units: Sequence[int], last: bool = False) -> bytes:
        """Return the samples that are final after further units, as pcm16 at the rate of ``Voice``."""
        return await self.batcher(Push(voice, units, last))

    def speaker(self, name: str | None, news: asyncio.Event) -> Speaker:
        """Return what speaks one answer.

        Args:
            name: A voice of the codec; None for its default.
            news: Set whenever there is sound to take, or the speaker has ended.
        """
        return Speaker(self, Voice(self._codec, name), self._codec.rate_hz, news)

    async def close(self) -> None:
        """End the threads."""
        await self.batcher.close()

    def _run(self, pushes: Sequence[Push]) -> list[bytes | Exception]:
        streams, units, last = [p.voice.stream for p in pushes], [p.units for p in pushes], [p.last for p in pushes]
        if len(pushes) > 1:
            try:
                waves = advance(self._codec, streams, units, last)
            except Exception as error:
                # streams may have moved on: none of them can be spoken to its end
                return [error] * len(pushes)
            return [push.voice.write(wave_N, push.last) for push, wave_N in zip(pushes, waves, strict=True)]
        (wave_N,) = advance(self._codec, streams, units, last)
        return [pushes[0].voice.write(wave_N, last[0])]
