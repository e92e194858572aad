"""Units of an answer become sound at the rate that OpenAI's clients expect."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import soxr

from slm_plugin.speech.protocol import Codec, SpeechStream, VoicedCodec

RATE_HZ = 24_000
"""Rate of all sound that leaves: clients take pcm16 to be 24 kHz."""

OPENAI_VOICES = (
    *("alloy", "ash", "ballad", "cedar", "coral", "echo", "fable", "marin", "nova", "onyx"),
    *("sage", "shimmer", "verse"),
    "default",  # ours
)
"""Names that stand for the codec's default voice, so that stock clients need not know it."""


class Voice:
    """Speaks one answer: the codec's streaming synthesiser and one streaming resampler behind it.

    The samples do not depend on how the units were cut into pushes. Blocking: call it in a worker thread,
    one call at a time.

    Args:
        codec: Makes sound of units.
        name: One of the codec's voices; None for its default.
    """

    def __init__(self, codec: Codec, name: str | None = None) -> None:
        self.stream: SpeechStream
        if name is None:
            self.stream = codec.stream()
        else:
            assert isinstance(codec, VoicedCodec), "a voice was chosen that the codec does not have"
            self.stream = codec.stream_as(name)
        self._resampler = soxr.ResampleStream(codec.sample_rate_hz, RATE_HZ, 1, dtype="float32")

    def push(self, units: Sequence[int]) -> bytes:
        """Take further units; return the samples that are final now as pcm16, possibly none."""
        return self.write(self.stream.push(units), last=False)

    def finish(self) -> bytes:
        """Return the remaining samples as pcm16."""
        return self.write(self.stream.finish(), last=True)

    def write(self, wave_N: np.ndarray, last: bool) -> bytes:
        """Return what further samples of the codec make final as pcm16 at :data:`RATE_HZ`."""
        return pcm16(self._resampler.resample_chunk(np.asarray(wave_N, np.float32), last=last))


def pcm16(wave_N: np.ndarray) -> bytes:
    """Write samples in [-1, 1] as 16-bit little-endian integers; what lies outside is clipped."""
    return np.round(np.clip(wave_N, -1.0, 1.0) * 32767.0).astype("<i2").tobytes()
