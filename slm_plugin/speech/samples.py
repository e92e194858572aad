"""Samples of any type and any number of channels as one channel of floats.

Shapes: ``N`` samples, ``C`` channels.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from slm_plugin.errors import AudioError

MAX_CHANNELS = 8
ANTIPHASE_SHARE = 0.01
"""Two channels whose mean keeps less of their power than this cancel each other."""

NonFinite = Literal["refuse", "zero"]


def as_float(wave: np.ndarray, non_finite: NonFinite = "refuse") -> tuple[np.ndarray, bool]:
    """Return ``(N,)`` or ``(N, C)`` samples as float64, integers scaled to [-1, 1), and whether any was not finite.

    Raises:
        AudioError: The type holds no audio, or a sample is no finite number and ``non_finite`` is ``refuse``.
    """
    if wave.dtype.kind == "f":
        finite = np.isfinite(wave)
        if finite.all():
            return wave.astype(np.float64), False
        if non_finite == "zero":
            return np.where(finite, wave, 0.0).astype(np.float64), True
        bad = int(np.flatnonzero(~finite.reshape(len(wave), -1).all(1))[0])
        raise AudioError(f"sample {bad} of the recording is not a finite number; the file is damaged.")
    if wave.dtype.kind == "i":
        return wave.astype(np.float64) / (float(np.iinfo(wave.dtype).max) + 1.0), False
    if wave.dtype.kind == "u":
        half = (float(np.iinfo(wave.dtype).max) + 1.0) / 2.0
        return (wave.astype(np.float64) - half) / half, False
    raise AudioError(f"samples of type {wave.dtype} are not audio; use floats in [-1, 1] or integers.")


def channels_of(wave: np.ndarray) -> int:
    """Return the number of channels of ``(N,)`` or ``(N, C)`` samples.

    Raises:
        AudioError: The array has another form, or more channels than a recording of speech has.
    """
    if wave.ndim == 1:
        return 1
    if wave.ndim != 2:
        raise AudioError(f"a recording has samples and channels, got an array with {wave.ndim} dimensions.")
    if not 1 <= wave.shape[1] <= MAX_CHANNELS:
        raise AudioError(f"a recording with {wave.shape[1]} channels is not supported; use 1 to {MAX_CHANNELS}.")
    return int(wave.shape[1])


def opposite(wave: np.ndarray) -> bool:
    """Say whether ``(N,)`` or ``(N, C)`` samples are two channels that cancel: the mean keeps < 1 % of the power."""
    if wave.ndim != 2 or wave.shape[1] != 2 or not len(wave):
        return False
    return float((wave.mean(1) ** 2).mean()) < ANTIPHASE_SHARE * float((wave**2).mean())


def one_channel(wave: np.ndarray, first: bool) -> np.ndarray:
    """Return the mean of all channels of ``(N,)`` or ``(N, C)`` samples, or the first one: ``(N,)``."""
    if wave.ndim == 1:
        return wave
    return np.asarray(wave[:, 0] if first else wave.mean(1))
