"""Everything that must happen to a recording before it becomes units.

The policy: a rate must be given (guessing one corrupts the units without a sign of it); other rates
are resampled by soxr, below 8 kHz is refused; two or more channels are averaged, opposite ones (whose
mean cancels) give their first; more than 8 channels are refused, and so are samples that are no
numbers. An empty or very short recording is empty, not wrong.

Shapes: ``N`` samples, ``C`` channels.
"""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np

from slm_plugin.errors import AudioError

MIN_RATE_HZ = 8_000
MAX_RATE_HZ = 768_000
MAX_CHANNELS = 8
MIN_SECONDS = 0.025
"""Shorter recordings hold no speech: they count as empty."""

FORMATS = "wav, flac, ogg, opus or mp3"


def decode(
    source: bytes | str | Path, max_seconds: float = 3600.0, max_bytes: int | None = None
) -> tuple[np.ndarray, int]:
    """Read a recording with libsndfile.

    Args:
        source: The file's bytes, or its path.
        max_seconds: Longest recording that is accepted; longer ones are refused before they are read.
        max_bytes: Largest file that is accepted; None for any.

    Returns:
        Float32 samples of shape ``(N, C)`` and their rate in Hz.

    Raises:
        AudioError: It is missing, too large, too long, or not a recording that libsndfile can read.
    """
    import soundfile

    name = "the recording" if isinstance(source, bytes) else str(source)
    if not isinstance(source, bytes) and not Path(source).is_file():
        raise AudioError(f"{name} does not exist.")
    n_bytes = len(source) if isinstance(source, bytes) else Path(source).stat().st_size
    if n_bytes == 0:
        raise AudioError(f"{name} has no bytes; send {FORMATS}.")
    if max_bytes is not None and n_bytes > max_bytes:
        raise AudioError(f"{name} has {n_bytes} bytes, more than the limit of {max_bytes}.")
    try:
        with soundfile.SoundFile(io.BytesIO(source) if isinstance(source, bytes) else str(source)) as file:
            # the header may lie about the length, so no more than the limit is ever read
            limit = int(max_seconds * file.samplerate)
            wave_NC = file.read(limit + 1, dtype="float32", always_2d=True)
            rate_hz = int(file.samplerate)
    except (soundfile.LibsndfileError, TypeError, ValueError, RuntimeError) as error:
        # libsndfile's own words, without the object that it read from
        reason = str(getattr(error, "error_string", error)).rstrip(".")
        raise AudioError(f"{name} cannot be read ({reason}); send {FORMATS}.") from None
    if len(wave_NC) > limit:
        raise AudioError(f"{name} is longer than the limit of {max_seconds:g} seconds.")
    return wave_NC, rate_hz


def prepare(
    wave: np.ndarray, rate_hz: int | None, target_rate_hz: int, max_seconds: float | None = None
) -> np.ndarray:
    """Return a recording as mono float32 at the rate that a codec takes.

    Args:
        wave: Samples of shape ``(N,)`` or ``(N, C)``; integers are scaled to [-1, 1).
        rate_hz: Their rate; None is refused.
        target_rate_hz: The rate to return.
        max_seconds: Longest recording that is accepted; None for any.

    Raises:
        AudioError: Anything of the policy above.
    """
    if rate_hz is None:
        raise AudioError("the sampling rate of the recording is not known; give it in Hz, such as 16000.")
    if not MIN_RATE_HZ <= rate_hz <= MAX_RATE_HZ:
        raise AudioError(f"a sampling rate of {rate_hz} Hz is not supported; use {MIN_RATE_HZ} to {MAX_RATE_HZ} Hz.")
    mono_N = _mono(_as_float(np.asarray(wave)))
    seconds = len(mono_N) / rate_hz
    if max_seconds is not None and seconds > max_seconds:
        raise AudioError(f"the recording lasts {seconds:.1f} seconds, more than the limit of {max_seconds:g}.")
    if seconds < MIN_SECONDS:
        return np.zeros(0, np.float32)
    return resample(mono_N, rate_hz, target_rate_hz)


def resample(wave_N: np.ndarray, rate_hz: int, target_rate_hz: int) -> np.ndarray:
    """Return a wave at another rate, float32.

    soxr works in double precision, so that processors with other vector units give the same float32.
    """
    if rate_hz == target_rate_hz:
        return np.ascontiguousarray(wave_N, np.float32)
    import soxr

    resampled = soxr.resample(wave_N.astype(np.float64), rate_hz, target_rate_hz, quality="VHQ")
    return np.asarray(resampled, np.float32)


def _as_float(wave: np.ndarray) -> np.ndarray:
    if wave.dtype.kind == "f":
        if not np.isfinite(wave).all():
            bad = int(np.flatnonzero(~np.isfinite(wave).reshape(len(wave), -1).all(1))[0])
            raise AudioError(f"sample {bad} of the recording is not a finite number; the file is damaged.")
        return wave.astype(np.float64)
    if wave.dtype.kind == "i":
        return wave.astype(np.float64) / (float(np.iinfo(wave.dtype).max) + 1.0)
    if wave.dtype.kind == "u":
        half = (float(np.iinfo(wave.dtype).max) + 1.0) / 2.0
        return (wave.astype(np.float64) - half) / half
    raise AudioError(f"samples of type {wave.dtype} are not audio; use floats in [-1, 1] or integers.")


def _mono(wave: np.ndarray) -> np.ndarray:
    if wave.ndim == 1:
        return wave
    if wave.ndim != 2:
        raise AudioError(f"a recording has samples and channels, got an array with {wave.ndim} dimensions.")
    n_channels = wave.shape[1]
    if not 1 <= n_channels <= MAX_CHANNELS:
        raise AudioError(f"a recording with {n_channels} channels is not supported; use 1 to {MAX_CHANNELS}.")
    mean_N = wave.mean(1)
    if n_channels == 2 and len(wave):
        power, mean_power = float((wave**2).mean()), float((mean_N**2).mean())
        # opposite channels cancel: less than 1 % of the power is left
        if mean_power < 0.01 * power:
            return wave[:, 0]
    return mean_N
