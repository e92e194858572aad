"""Waves at another rate, whole or block by block, by soxr.

Shapes: ``wave_N`` is ``(n_samples,)``; what is returned has ``n_samples * target_rate / rate`` samples, rounded.
"""

from __future__ import annotations

from typing import Any

import numpy as np


def resample(wave_N: np.ndarray, rate_hz: int, target_rate_hz: int) -> np.ndarray:
    """Return a wave at another rate, ``(N,)`` float32.

    soxr works in double precision, so that processors with other vector units give the same float32.
    """
    if rate_hz == target_rate_hz:
        return np.ascontiguousarray(wave_N, np.float32)
    import soxr

    resampled = soxr.resample(wave_N.astype(np.float64), rate_hz, target_rate_hz, quality="VHQ")
    return np.asarray(resampled, np.float32)


class Resampler:
    """Resamples a wave that arrives in blocks.

    All blocks joined give :func:`resample` of the whole, within float32's rounding, however the wave was cut.

    Args:
        rate_hz: Rate of the blocks.
        target_rate_hz: Rate to return.
    """

    def __init__(self, rate_hz: int, target_rate_hz: int) -> None:
        self._stream: Any = None
        if rate_hz != target_rate_hz:
            import soxr

            self._stream = soxr.ResampleStream(rate_hz, target_rate_hz, 1, dtype="float64", quality="VHQ")

    def push(self, wave_N: np.ndarray, last: bool = False) -> np.ndarray:
        """Take a block and return the samples that are final now, ``(N,)`` float32; ``last`` ends the wave."""
        if self._stream is None:
            return np.ascontiguousarray(wave_N, np.float32)
        return np.asarray(self._stream.resample_chunk(wave_N.astype(np.float64), last=last), np.float32)
