"""What the levels of a recording say about it, counted block by block.

Every number is a sum, so however a recording is cut into blocks, the flags are those of the whole.
"""

from __future__ import annotations

import numpy as np

CLIPPED_SHARE = 1e-3
"""Share of samples on a plateau at full scale, or beyond it, from which a recording counts as clipped."""

FULL_SCALE = 0.99
"""Plateaus below this are loud, not clipped."""

OUT_OF_SCALE = 8.0
"""No float recording in [-1, 1] has such a peak; integers stored as floats have."""

SILENT_RMS = 1e-4
"""Root mean square, -80 dB of full scale, below which nothing was recorded."""

OFFSET_SHARE = 0.5
"""Share of the peak that a constant has from which the constant is what was recorded."""


class Levels:
    """Peak, mean, power and plateaus of one channel."""

    def __init__(self) -> None:
        self.n_samples = 0
        self.peak = 0.0
        self._sum = 0.0
        self._squares = 0.0
        self._clipped = 0
        self._last = np.zeros(0)

    def add(self, wave_N: np.ndarray) -> None:
        """Count a further block, float64."""
        if not len(wave_N):
            return
        sizes_N = np.abs(wave_N)
        self.n_samples += len(wave_N)
        self.peak = max(self.peak, float(sizes_N.max()))
        self._sum += float(wave_N.sum())
        self._squares += float((wave_N**2).sum())
        # three equal samples in a row are a plateau; a plateau may begin in the block before
        joined = np.concatenate([self._last, wave_N])
        flat = (joined[2:] == joined[1:-1]) & (joined[1:-1] == joined[:-2]) & (np.abs(joined[2:]) >= FULL_SCALE)
        self._clipped += int(flat.sum()) + int((sizes_N > 1.0).sum())
        self._last = joined[-2:]

    def flags(self) -> set[str]:
        """Return which of ``out_of_scale``, ``clipped``, ``silent`` and ``dc_offset`` hold so far."""
        if not self.n_samples:
            return set()
        found = set()
        if self.peak > OUT_OF_SCALE:
            found.add("out_of_scale")
        elif self._clipped > CLIPPED_SHARE * self.n_samples:
            found.add("clipped")
        if float(np.sqrt(self._squares / self.n_samples)) < SILENT_RMS:
            found.add("silent")
        elif abs(self._sum / self.n_samples) > OFFSET_SHARE * self.peak:
            found.add("dc_offset")
        return found
