"""How far a frame's samples depend on other frames.

Counted backwards through the layers as intervals ``[low, high]`` of positions, which is exact.
"""

from __future__ import annotations

from dataclasses import dataclass

from slm_plugin.speech.vocoder.settings import VocoderShape

_EDGE = 3
"""Samples to either side of the first and of the last convolution, whose kernels have 7."""


@dataclass(frozen=True)
class Reach:
    """Frames that a frame's samples depend on.

    Attributes:
        left: Frames before it.
        right: Frames behind it.
    """

    left: int
    right: int


def reach(shape: VocoderShape) -> Reach:
    """Return the reach of a vocoder: 21 frames to either side in ``vocoder_v2``."""
    left = right = 0
    for sample in range(shape.hop):
        low, high = _frames_behind(shape, sample)
        left, right = max(left, -low), max(right, high)
    return Reach(left, right)


def _frames_behind(shape: VocoderShape, sample: int) -> tuple[int, int]:
    """Return the first and last frame that a sample of frame 0 depends on."""
    low, high = sample - _EDGE, sample + _EDGE
    # a residual block is a chain of pairs of convolutions: one dilated, one not
    block = max(
        (kernel - 1) // 2 * (sum(dilations) + len(dilations))
        for kernel, dilations in zip(shape.block_kernels, shape.block_dilations, strict=True)
    )
    for rate, kernel in zip(reversed(shape.upsample_rates), reversed(shape.upsample_kernels), strict=True):
        low, high = low - block, high + block
        # a transposed convolution writes input i to i * rate - padding + tap, 0 <= tap < kernel
        padding = (kernel - rate) // 2
        low = -((kernel - 1 - padding - low) // rate)
        high = (high + padding) // rate
    return low - _EDGE, high + _EDGE
