"""Recordings that arrive in blocks: the same policy as for whole ones, with bounded memory.

The channels are chosen by the first second, which is therefore held back; a whole recording looks at all of
it. Everything else, flags included, is that of the whole recording however it is cut into blocks.

Shapes: ``N`` samples, ``C`` channels.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from slm_plugin.errors import AudioError
from slm_plugin.speech import containers
from slm_plugin.speech.audio import FORMATS, is_unknown_format
from slm_plugin.speech.levels import Levels
from slm_plugin.speech.policy import (
    LONG_SECONDS,
    MIN_SECONDS,
    AudioPolicy,
    channel_flags,
    check_rate,
    rate_flags,
)
from slm_plugin.speech.resampling import Resampler
from slm_plugin.speech.samples import as_float, channels_of, one_channel, opposite

DECISION_SECONDS = 1.0


class AudioStream:
    """Turns blocks of a recording into mono float32 samples at a codec's rate.

    Args:
        rate_hz: Rate of the blocks; None is refused.
        target_rate_hz: The codec's rate.
        policy: What to do where there is a choice.

    Raises:
        AudioError: The rate is not known or not supported, or the policy trims (the end is not known).
    """

    def __init__(self, rate_hz: int | None, target_rate_hz: int, policy: AudioPolicy | None = None) -> None:
        self._rate_hz = check_rate(rate_hz)
        self._policy = policy or AudioPolicy()
        if self._policy.trim_below_db is not None:
            raise AudioError("silence at the ends of a stream cannot be cut; leave trim_below_db unset.")
        self._target_rate_hz = target_rate_hz
        self._resampler = Resampler(self._rate_hz, target_rate_hz)
        self._levels = Levels()
        self._held: list[np.ndarray] | None = []
        self._n_held = 0
        self._n_channels: int | None = None
        self._cancels = False
        self._non_finite = False

    @property
    def seconds(self) -> float:
        """How much has arrived."""
        return (self._levels.n_samples + self._n_held) / self._rate_hz

    def push(self, block: np.ndarray) -> np.ndarray:
        """Take ``(N,)`` or ``(N, C)`` samples and return those that are final now, ``(N,)`` float32, possibly none.

        Raises:
            AudioError: Anything that the policy refuses, or blocks with different channels.
        """
        samples, was_non_finite = as_float(np.asarray(block), self._policy.non_finite)
        self._non_finite |= was_non_finite
        n_channels = channels_of(samples)
        if self._n_channels not in (None, n_channels):
            raise AudioError(f"a block has {n_channels} channels, the ones before have {self._n_channels}.")
        self._n_channels = n_channels
        if self._held is None:
            return self._pass(samples)
        self._held.append(samples)
        self._n_held += len(samples)
        self._check_length()
        return self._decide() if self._n_held >= DECISION_SECONDS * self._rate_hz else np.zeros(0, np.float32)

    def finish(self) -> np.ndarray:
        """Return the remaining samples, ``(N,)`` float32; the stream is used up afterwards."""
        n_samples = self._n_held + self._levels.n_samples
        if n_samples < MIN_SECONDS * self._rate_hz:
            return self._short(n_samples)
        rest = self._decide() if self._held is not None else np.zeros(0, np.float32)
        return np.concatenate([rest, self._resampler.push(np.zeros(0), last=True)])

    def flags(self) -> tuple[str, ...]:
        """Return what was noted so far, sorted; all of it after ``finish``."""
        found = self._levels.flags() | rate_flags(self._rate_hz, self._target_rate_hz)
        found |= channel_flags(self._n_channels or 1, self._cancels)
        if self._non_finite:
            found.add("non_finite")
        if self.seconds > LONG_SECONDS:
            found.add("long")
        if self.seconds < MIN_SECONDS:
            found.add("short")
        return tuple(sorted(found))

    def _decide(self) -> np.ndarray:
        samples = np.concatenate(self._held or [np.zeros(0)])
        self._held, self._n_held = None, 0
        # whatever the blocks are, the decision is about the same samples
        self._cancels = opposite(samples[: int(DECISION_SECONDS * self._rate_hz)])
        return self._pass(samples)

    def _pass(self, samples: np.ndarray) -> np.ndarray:
        mono_N = one_channel(samples, first=self._cancels)
        self._levels.add(mono_N)
        self._check_length()
        return self._resampler.push(mono_N)

    def _short(self, n_samples: int) -> np.ndarray:
        if self._policy.short == "empty" or not n_samples:
            self._measure_held()
            return np.zeros(0, np.float32)
        wave = self._decide()
        missing = int(np.ceil(MIN_SECONDS * self._rate_hz)) - n_samples
        return np.concatenate([wave, self._resampler.push(np.zeros(missing), last=True)])

    def _measure_held(self) -> None:
        samples = np.concatenate(self._held or [np.zeros(0)])
        self._held, self._n_held = None, 0
        self._cancels = opposite(samples)
        self._levels.add(one_channel(samples, first=self._cancels))

    def _check_length(self) -> None:
        limit = self._policy.max_seconds
        if limit is not None and self.seconds > limit:
            raise AudioError(f"the recording lasts more than the limit of {limit:g} seconds.")


def blocks_of(path: Path, block_seconds: float = 1.0, max_seconds: float = 3600.0) -> Iterator[tuple[np.ndarray, int]]:
    """Read a recording block by block: with libsndfile, and containers that it does not know with PyAV.

    Yields:
        Float32 samples ``(N, C)`` and their rate in Hz.

    Raises:
        AudioError: It is missing, too long, or not a recording in one of :data:`slm_plugin.speech.audio.FORMATS`.
    """
    import soundfile

    if not Path(path).is_file():
        raise AudioError(f"{path} does not exist.")
    try:
        with soundfile.SoundFile(str(path)) as file:
            rate_hz = int(file.samplerate)
            for block in file.blocks(max(1, int(block_seconds * rate_hz)), dtype="float32", always_2d=True):
                yield block, rate_hz
    except (soundfile.LibsndfileError, RuntimeError) as error:
        if is_unknown_format(error):
            try:
                yield from containers.container_blocks(path, str(path), max_seconds)
                return
            except containers.UnknownContainerError:
                pass
        reason = str(getattr(error, "error_string", error)).rstrip(".")
        raise AudioError(f"{path} cannot be read ({reason}); send {FORMATS}.") from None
