"""The input buffer: sound of the caller, cut to turns by the client or by voice activity.

Times are milliseconds of all sound that came since the session began.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass

import numpy as np
import soxr

from slm_serve.errors import RequestError
from slm_serve.realtime.events import ServerVad
from slm_serve.workers.encoder import PCM16_RATE_HZ
from slm_serve.workers.voice_activity import RATE_HZ, WINDOW, Memory, VoiceActivityWorker, Window

_BYTES_PER_MS = 2 * PCM16_RATE_HZ // 1000
_WINDOW_MS = 1000 * WINDOW // RATE_HZ
_HYSTERESIS = 0.15
"""How far under the threshold a window must be to count as silence while somebody speaks."""


@dataclass(frozen=True)
class Started:
    """Somebody began to speak."""

    audio_start_ms: int


@dataclass(frozen=True)
class Stopped:
    """Somebody has spoken.

    Attributes:
        audio_end_ms: When the turn ended, its silence included.
        recording: The turn as pcm16 at 24 kHz.
    """

    audio_end_ms: int
    recording: bytes


class InputBuffer:
    """Sound that no turn holds yet.

    Args:
        worker: Tells speech from silence.
        max_seconds: Longest turn.
    """

    def __init__(self, worker: VoiceActivityWorker, max_seconds: float) -> None:
        self._worker = worker
        self._max_ms = 1000.0 * max_seconds
        self._held = bytearray()
        # of the first held byte
        self._held_ms = 0.0
        self._detector: _Detector | None = None

    def detect(self, settings: ServerVad | None) -> None:
        """Find turns from now on, or leave them to the client."""
        if settings is None:
            self._detector = None
        elif self._detector is None or self._detector.settings != settings:
            self._detector = _Detector(settings, self._worker, self._end_ms(), self._max_ms)

    async def append(self, samples: bytes) -> list[Started | Stopped]:
        """Take further pcm16 samples; return the turns that begin and end in them.

        Raises:
            RequestError: Half a sample came, or more sound than a turn may hold.
        """
        if len(samples) % 2:
            raise RequestError("audio: pcm16 has two bytes a sample; an odd number of bytes came.", "audio")
        if self._detector is None and len(self._held) + len(samples) > self._max_ms * _BYTES_PER_MS:
            most = f"{self._max_ms / 1000.0:g} seconds"
            raise RequestError(f"the buffer holds {most} at most; commit or clear it.", "audio")
        self._held += samples
        if self._detector is None:
            return []
        found: list[Started | Stopped] = []
        async for moment in self._detector.moments(samples):
            found.append(self._cut(moment))
        self._forget()
        return found

    def commit(self) -> bytes:
        """Return all sound held and forget it.

        Raises:
            RequestError: There is none.
        """
        if not self._held:
            raise RequestError("the input buffer is empty.", None, "input_audio_buffer_commit_empty")
        recording = bytes(self._held)
        self.clear()
        return recording

    def clear(self) -> None:
        """Forget the sound held."""
        self._drop(len(self._held))
        if self._detector is not None:
            self._detector.speaking_since_ms = None

    def _end_ms(self) -> float:
        return self._held_ms + len(self._held) / _BYTES_PER_MS

    def _cut(self, moment: _Moment) -> Started | Stopped:
        assert self._detector is not None
        if moment.starts:
            # what is gone from the buffer cannot belong to the turn
            return Started(int(max(moment.at_ms, self._held_ms)))
        begin = max(0, int(moment.began_ms - self._held_ms)) * _BYTES_PER_MS
        end = int(moment.at_ms - self._held_ms) * _BYTES_PER_MS
        recording = bytes(self._held[begin:end])
        self._drop(end)
        return Stopped(int(moment.at_ms), recording)

    def _forget(self) -> None:
        """Hold no more than the next turn may need."""
        assert self._detector is not None
        since = self._detector.speaking_since_ms
        if since is None:
            since = self._end_ms() - self._detector.settings.prefix_padding_ms - 2 * _WINDOW_MS
        self._drop(int(max(0.0, since - self._held_ms)) * _BYTES_PER_MS)

    def _drop(self, n_bytes: int) -> None:
        n_bytes = min(n_bytes, len(self._held))
        del self._held[:n_bytes]
        self._held_ms += n_bytes / _BYTES_PER_MS


@dataclass(frozen=True)
class _Moment:
    starts: bool
    at_ms: float
    began_ms: float


class _Detector:
    """Voice activity window by window; speech begins at once and ends behind enough silence."""

    def __init__(self, settings: ServerVad, worker: VoiceActivityWorker, now_ms: float, max_ms: float) -> None:
        self.settings = settings
        self._max_ms = max_ms
        self.speaking_since_ms: float | None = None
        self._worker = worker
        self._resampler = soxr.ResampleStream(PCM16_RATE_HZ, RATE_HZ, 1, dtype="float32")
        self._wave_N = np.zeros(0, np.float32)
        self._memory = Memory.fresh()
        self._now_ms = now_ms
        self._silent_ms = 0

    async def moments(self, samples: bytes) -> AsyncIterator[_Moment]:
        wave_N = np.frombuffer(samples, "<i2").astype(np.float32) / 32768.0
        self._wave_N = np.concatenate([self._wave_N, self._resampler.resample_chunk(wave_N)])
        while len(self._wave_N) >= WINDOW:
            window_N, self._wave_N = self._wave_N[:WINDOW], self._wave_N[WINDOW:]
            activity = await self._worker.judge(Window(self._memory, window_N))
            self._memory = activity.memory
            moment = self._take(activity.probability)
            self._now_ms += _WINDOW_MS
            if moment is not None:
                yield moment

    def _take(self, probability: float) -> _Moment | None:
        """Take note of a window that begins now; return the moment that it makes."""
        settings = self.settings
        if self.speaking_since_ms is None:
            if probability < settings.threshold:
                return None
            self.speaking_since_ms, self._silent_ms = max(0.0, self._now_ms - settings.prefix_padding_ms), 0
            return _Moment(True, self.speaking_since_ms, self.speaking_since_ms)
        is_silent = probability < max(settings.threshold - _HYSTERESIS, 0.01)
        self._silent_ms = self._silent_ms + _WINDOW_MS if is_silent else 0
        end_ms, began_ms = self._now_ms + _WINDOW_MS, self.speaking_since_ms
        too_long = end_ms + _WINDOW_MS - began_ms > self._max_ms
        if self._silent_ms < settings.silence_duration_ms and not too_long:
            return None
        self.speaking_since_ms = None
        return _Moment(False, end_ms, began_ms)
