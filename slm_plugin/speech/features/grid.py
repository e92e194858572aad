"""The frame grid of a stack of convolutions, and windows on it.

Frame ``t`` sees the samples ``[t * hop, t * hop + field)``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise


@dataclass(frozen=True)
class FrameGrid:
    """Where the frames of a wave lie.

    Attributes:
        hop: Samples between two frames.
        field: Samples that a frame sees.
    """

    hop: int
    field: int

    @classmethod
    def of(cls, kernels: Sequence[int], strides: Sequence[int]) -> FrameGrid:
        """Return the grid of convolutions without padding, the first one next to the wave.

        ``hop = prod_i s_i`` and ``field = 1 + sum_i (k_i - 1) prod_{j<i} s_j``: 320 and 400 for wav2vec 2.0.
        """
        hop, field = 1, 1
        for kernel, stride in zip(kernels, strides, strict=True):
            field += (kernel - 1) * hop
            hop *= stride
        return cls(hop, field)

    def n_frames(self, n_samples: int) -> int:
        """Return ``floor((n - field) / hop) + 1``, 0 where not even one frame fits."""
        return 0 if n_samples < self.field else (n_samples - self.field) // self.hop + 1

    def samples(self, first: int, end: int) -> slice:
        """Return the samples that the frames ``[first, end)`` see."""
        return slice(first * self.hop, (end - 1) * self.hop + self.field)


@dataclass(frozen=True)
class Window:
    """Frames that are calculated together.

    Attributes:
        first: First frame seen.
        end: Frame behind the last one seen.
        keep_first: First frame kept.
        keep_end: Frame behind the last one kept.
    """

    first: int
    end: int
    keep_first: int
    keep_end: int


def windows(n_frames: int, longest: int, context: int) -> list[Window]:
    """Cut frames into windows of about equal length.

    What is kept of the windows is every frame once, in order. One window sees everything where
    ``n_frames`` is at most ``longest``.

    Args:
        n_frames: Frames in all.
        longest: Most frames kept of one window, at least 1.
        context: Frames seen to either side, where there are as many.
    """
    n_windows = math.ceil(n_frames / longest)
    edges = [number * n_frames // n_windows for number in range(n_windows)] + [n_frames] if n_windows else []
    return [
        Window(max(0, first - context), min(n_frames, end + context), first, end) for first, end in pairwise(edges)
    ]
