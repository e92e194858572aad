"""Everything that must happen to a recording before it becomes units, and what is noted about it.

Refused: a rate that is not known (guessing one corrupts the units without a sign of it), rates below
8 kHz, more than 8 channels, samples that are no numbers. Done: other rates are resampled by soxr, channels
averaged (of two opposite ones, whose mean cancels, the first is taken). Noted: everything in :data:`FLAGS`.

Shapes: ``N`` samples, ``C`` channels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from pydantic import Field

from slm_plugin.errors import AudioError
from slm_plugin.speech.levels import Levels
from slm_plugin.speech.resampling import resample
from slm_plugin.speech.samples import NonFinite, as_float, channels_of, one_channel, opposite
from slm_plugin.strict import Strict

MIN_RATE_HZ = 8_000
MAX_RATE_HZ = 768_000
MIN_SECONDS = 0.025
"""Shorter recordings hold no speech."""

LONG_SECONDS = 30.0
TRIM_FRAME_SECONDS = 0.01

FLAGS = {
    "resampled": "had another sampling rate than the codec's",
    "band_limited": "had a lower sampling rate than the codec's, so its highest frequencies are missing",
    "downmixed": "had several channels, of which the mean was taken",
    "antiphase": "had two channels that cancel each other, of which the first was taken",
    "non_finite": "had samples that were no numbers, which became 0",
    "clipped": "is cut off at full scale",
    "out_of_scale": "has samples far beyond [-1, 1], such as integers stored as floats",
    "dc_offset": "stands on a constant more than half as large as its peak",
    "silent": "is silent: below -80 dB of full scale",
    "short": f"is shorter than {MIN_SECONDS * 1000:g} ms, so it is empty or was padded",
    "long": f"is longer than {LONG_SECONDS:g} seconds",
    "trimmed": "lost silence at its ends",
}
"""What is noted about a recording, by name."""


class AudioPolicy(Strict):
    """What is done where there is a choice."""

    non_finite: NonFinite = "refuse"
    """Samples that are no numbers: ``refuse`` the recording, or take them as ``zero``."""

    short: Literal["empty", "pad"] = "empty"
    """Recordings under 25 ms: ``empty`` gives no units, ``pad`` adds silence up to 25 ms."""

    trim_below_db: float | None = Field(default=None, lt=0)
    """Cut silence at both ends, quieter than this against the peak, in dB. Off unless set: it breaks published
    alignments."""

    max_seconds: float | None = Field(default=3600.0, gt=0)
    """Longest recording that is accepted."""


@dataclass(frozen=True, eq=False)
class Conditioned:
    """A recording ready for a codec.

    Attributes:
        wave_N: Mono float32 samples at the codec's rate.
        flags: What was noted, sorted; keys of :data:`FLAGS`.
        seconds: How long the recording was as it came.
        trimmed_s: Seconds cut off its beginning.
    """

    wave_N: np.ndarray
    flags: tuple[str, ...]
    seconds: float
    trimmed_s: float = 0.0


def check_rate(rate_hz: int | None) -> int:
    """Return the rate of a recording in Hz.

    Raises:
        AudioError: It is not known or not supported.
    """
    if rate_hz is None:
        raise AudioError("the sampling rate of the recording is not known; give it in Hz, such as 16000.")
    if not MIN_RATE_HZ <= rate_hz <= MAX_RATE_HZ:
        raise AudioError(f"a sampling rate of {rate_hz} Hz is not supported; use {MIN_RATE_HZ} to {MAX_RATE_HZ} Hz.")
    return rate_hz


def rate_flags(rate_hz: int, target_rate_hz: int) -> set[str]:
    """Return ``resampled`` and ``band_limited`` where they hold."""
    found = {"resampled"} if rate_hz != target_rate_hz else set()
    return found | ({"band_limited"} if rate_hz < target_rate_hz else set())


def condition(wave: np.ndarray, rate_hz: int | None, target_rate_hz: int, policy: AudioPolicy) -> Conditioned:
    """Return a whole recording as a codec takes it.

    Args:
        wave: Samples of shape ``(N,)`` or ``(N, C)``; integers are scaled to [-1, 1).
        rate_hz: Their rate; None is refused.
        target_rate_hz: The codec's rate.
        policy: What to do where there is a choice.

    Raises:
        AudioError: Anything that is refused.
    """
    rate = check_rate(rate_hz)
    samples, was_non_finite = as_float(np.asarray(wave), policy.non_finite)
    n_channels, cancels = channels_of(samples), opposite(samples)
    mono_N = one_channel(samples, first=cancels)
    seconds = len(mono_N) / rate
    if policy.max_seconds is not None and seconds > policy.max_seconds:
        raise AudioError(f"the recording lasts {seconds:.1f} seconds, more than the limit of {policy.max_seconds:g}.")
    levels = Levels()
    levels.add(mono_N)
    flags = levels.flags() | rate_flags(rate, target_rate_hz) | channel_flags(n_channels, cancels)
    if was_non_finite:
        flags.add("non_finite")
    if seconds > LONG_SECONDS:
        flags.add("long")
    first = 0
    if policy.trim_below_db is not None:
        first, end = _loud_part(mono_N, rate, policy.trim_below_db)
        flags |= {"trimmed"} if end - first < len(mono_N) else set()
        mono_N = mono_N[first:end]
    if len(mono_N) / rate < MIN_SECONDS:
        flags.add("short")
        padded = policy.short == "pad" and len(mono_N)
        mono_N = np.pad(mono_N, (0, int(np.ceil(MIN_SECONDS * rate)) - len(mono_N))) if padded else mono_N[:0]
    wave_N = resample(mono_N, rate, target_rate_hz) if len(mono_N) else np.zeros(0, np.float32)
    return Conditioned(wave_N, tuple(sorted(flags)), seconds, first / rate)


def channel_flags(n_channels: int, cancels: bool) -> set[str]:
    """Return what was done with the channels."""
    return {"antiphase" if cancels else "downmixed"} if n_channels > 1 else set()


def _loud_part(wave_N: np.ndarray, rate_hz: int, below_db: float) -> tuple[int, int]:
    """Return where a wave first and last reaches a level against its peak, in whole frames of 10 ms."""
    frame = int(TRIM_FRAME_SECONDS * rate_hz)
    n_frames = -(-len(wave_N) // frame)
    padded = np.pad(np.abs(wave_N), (0, n_frames * frame - len(wave_N)))
    peaks_T = padded.reshape(n_frames, frame).max(1) if n_frames else np.zeros(0)
    if not n_frames or peaks_T.max() == 0:
        return 0, len(wave_N)
    loud = np.flatnonzero(peaks_T >= peaks_T.max() * 10 ** (below_db / 20))
    return int(loud[0]) * frame, min(len(wave_N), (int(loud[-1]) + 1) * frame)
