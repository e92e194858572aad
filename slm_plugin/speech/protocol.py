"""What a codec (audio <-> units) must answer.

Shapes: ``wave_N`` is ``(n_samples,)`` float32 in [-1, 1], mono, at ``sample_rate_hz``.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from slm_plugin.records import Units


class SpeechStream(Protocol):
    """Synthesises one utterance while its units arrive.

    The concatenation of everything ``push`` and ``finish`` return equals ``Codec.decode`` of all
    units, in length and within 1e-5 per sample, however the units are cut into pushes.
    """

    def push(self, units: Sequence[int]) -> np.ndarray:
        """Take further units and return the samples that are final now, possibly none."""
        ...

    def finish(self) -> np.ndarray:
        """Return the remaining samples; the stream is used up afterwards."""
        ...


class Codec(Protocol):
    """Turns speech into discrete units and units into speech.

    Attributes:
        n_units: Size of the unit vocabulary.
        rate_hz: Units per second before runs of equal units are folded.
        sample_rate_hz: Rate of the waves it takes and gives.
        folds_runs: Whether ``encode`` folds runs of equal units into one (and ``decode`` predicts
            their durations).
        fingerprint: Twelve hex digits over everything that decides which units come out.
    """

    n_units: int
    rate_hz: float
    sample_rate_hz: int
    folds_runs: bool
    fingerprint: str

    def encode(self, wave_N: np.ndarray) -> Units:
        """Return the units of a wave at ``sample_rate_hz``; an empty wave gives no units."""
        ...

    def decode(self, units: Sequence[int]) -> np.ndarray:
        """Return the wave of units at ``sample_rate_hz``.

        Raises:
            VocabularyError: A unit is outside ``[0, n_units)``.
        """
        ...

    def stream(self) -> SpeechStream:
        """Return a fresh streaming synthesiser."""
        ...

    def save(self, folder: Path) -> None:
        """Write the codec to a folder that :func:`slm_plugin.speech.codecs.load_codec` reads."""
        ...
