"""Recordings of many requests become units together."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import anyio
import numpy as np

from slm_plugin.errors import AudioError
from slm_plugin.speech.audio import decode, prepare
from slm_plugin.speech.protocol import Codec, encode_batch
from slm_serve.errors import RequestError
from slm_serve.ops.limits import DEFAULT, Limits
from slm_serve.workers.batcher import Batcher

PCM16_RATE_HZ = 24_000


class EncoderWorker:
    """Listens for every request: files are decoded one by one, waves are encoded in batches.

    Args:
        codec: Makes the units.
        threads: Files decoded at once, and batches encoded at once.
        most: Largest batch.
        waiting: Waves that may wait.
        limits: Bounds of a recording.
    """

    def __init__(
        self, codec: Codec, threads: int = 1, most: int = 8, waiting: int = 64, limits: Limits = DEFAULT
    ) -> None:
        self._codec = codec
        self._limits = limits
        self._decoding = anyio.Semaphore(max(1, threads))
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="slm-decoder")
        self.batcher: Batcher[np.ndarray, tuple[int, ...]] = Batcher(self._run, "slm-encoder", threads, most, waiting)

    async def units(self, recording: bytes | str, form: str, param: str | None) -> tuple[int, ...]:
        """Return the units of a recording.

        Args:
            recording: The file, as bytes or in base64.
            form: ``pcm16`` for bare samples (mono, little-endian, 24 kHz); any other file says itself what it is.
            param: Where the request holds the recording, for messages.

        Raises:
            RequestError: It is not base64, not audio, too short, too long or of too low a rate.
        """
        units, _ = await self.units_and_seconds(recording, form, param)
        return units

    async def units_and_seconds(
        self, recording: bytes | str, form: str, param: str | None
    ) -> tuple[tuple[int, ...], float]:
        """Return the units of a recording, and for how long it plays."""
        loop = asyncio.get_running_loop()
        # waiting here instead of in the pool, a request that was left decodes nothing
        async with self._decoding:
            wave_N, seconds = await loop.run_in_executor(self._pool, self._decode, recording, form, param)
        units = await self.batcher(wave_N)
        if not units:
            raise RequestError("the recording is too short to hold speech.", param, "invalid_audio")
        return units, seconds

    async def close(self) -> None:
        """End the threads."""
        await self.batcher.close()
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _decode(self, recording: bytes | str, form: str, param: str | None) -> tuple[np.ndarray, float]:
        try:
            raw = base64.b64decode(recording, validate=True) if isinstance(recording, str) else recording
        except ValueError as error:
            raise RequestError(f"the recording is not base64 ({error}).", param) from None
        try:
            if form == "pcm16":
                wave, rate_hz = _samples(raw)
            else:
                limits = self._limits
                wave, rate_hz = decode(raw, max_seconds=limits.clip_s, max_decoded_bytes=limits.decoded_bytes)
            mono_N = prepare(wave, rate_hz, self._codec.sample_rate_hz, max_seconds=self._limits.clip_s)
            return mono_N, len(wave) / rate_hz
        except AudioError as error:
            raise RequestError(str(error), param, "invalid_audio") from None

    def _run(self, waves: Sequence[np.ndarray]) -> list[tuple[int, ...] | Exception]:
        try:
            return [units.values for units in encode_batch(self._codec, waves)]
        except Exception as error:
            if len(waves) == 1:
                return [error]
        # the mistake of one recording is not told to the others
        return [result for wave_N in waves for result in self._run([wave_N])]


def _samples(raw: bytes) -> tuple[np.ndarray, int]:
    if len(raw) % 2:
        raise AudioError("pcm16 has two bytes a sample; the recording has an odd number of bytes.")
    return np.frombuffer(raw, "<i2"), PCM16_RATE_HZ
