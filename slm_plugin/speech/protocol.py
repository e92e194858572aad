"""What a codec (audio <-> units) must answer.

Shapes: ``wave_N`` is ``(n_samples,)`` float32 in [-1, 1], mono, at ``sample_rate_hz``.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np

from slm_plugin.records import Units


class SpeechStream(Protocol):
    """Synthesises one utterance while its units arrive.

    The concatenation of everything ``push`` and ``finish`` return equals ``Codec.decode`` of all
    units, in length and within 1e-5 per sample, however the units are cut into pushes.
    """

    def push(self, units: Sequence[int]) -> np.ndarray:
        """Take further units and return the samples that are final now, ``(N,)`` float32, possibly none."""
        ...

    def finish(self) -> np.ndarray:
        """Return the remaining samples, ``(N,)`` float32; the stream is used up afterwards."""
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

    It may also have ``first_centre_s``, the middle of what its first frame sees, in seconds; half a frame is
    assumed where it has none.
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
        """Return the wave of units, ``(N,)`` float32 at ``sample_rate_hz``.

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


@runtime_checkable
class BatchedCodec(Protocol):
    """What a codec may answer besides :class:`Codec` where many at once are cheaper than one by one.

    Use :func:`encode_batch` and :func:`decode_batch`, which work with every codec.
    """

    def encode_batch(self, waves: Sequence[np.ndarray]) -> list[Units]:
        """Return what ``encode`` of each wave ``(N,)`` gives, in order; lengths may differ and be 0."""
        ...

    def decode_batch(self, sequences: Sequence[Sequence[int]]) -> list[np.ndarray]:
        """Return what ``decode`` of each sequence gives, ``(N,)`` float32, in order, within 1e-5 per sample.

        Raises:
            VocabularyError: A unit is outside ``[0, n_units)``.
        """
        ...


def encode_batch(codec: Codec, waves: Sequence[np.ndarray]) -> list[Units]:
    """Return the units of several waves, ``(N,)`` each: together where the codec can, else one by one."""
    if isinstance(codec, BatchedCodec):
        return codec.encode_batch(waves)
    return [codec.encode(wave_N) for wave_N in waves]


def decode_batch(codec: Codec, sequences: Sequence[Sequence[int]]) -> list[np.ndarray]:
    """Return the waves of several unit sequences, ``(N,)`` each: together where the codec can, else one by one.

    Raises:
        VocabularyError: A unit is outside ``[0, n_units)``.
    """
    if isinstance(codec, BatchedCodec):
        return codec.decode_batch(sequences)
    return [codec.decode(units) for units in sequences]


@runtime_checkable
class BatchedStreams(Protocol):
    """What a codec may answer besides :class:`Codec` where many streams at once are cheaper than one by one.

    Use :func:`advance`, which works with every codec.
    """

    def advance(
        self, streams: Sequence[SpeechStream], pushes: Sequence[Sequence[int]], last: Sequence[bool]
    ) -> list[np.ndarray]:
        """Push to each of several different streams, and finish those of which it is the last push.

        Returns:
            For each stream what its ``push``, followed by its ``finish`` where ``last``, gives: ``(N,)`` float32.

        Raises:
            VocabularyError: A unit is outside ``[0, n_units)``.
        """
        ...


@runtime_checkable
class VoicedCodec(Protocol):
    """What a codec with several speakers or languages answers besides :class:`Codec`.

    Attributes:
        voices: Names worth listing; others may be known too.
    """

    @property
    def voices(self) -> Sequence[str]:
        """Return the names."""
        ...

    def has_voice(self, voice: str) -> bool:
        """Tell whether a name is known, listed or not."""
        ...

    def stream_as(self, voice: str) -> SpeechStream:
        """Return a fresh streaming synthesiser that speaks with a voice that is known."""
        ...


def advance(
    codec: Codec, streams: Sequence[SpeechStream], pushes: Sequence[Sequence[int]], last: Sequence[bool]
) -> list[np.ndarray]:
    """Push to several streams of a codec: together where the codec can, else one by one.

    Args:
        codec: What the streams are of.
        streams: Different streams.
        pushes: Further units of each, possibly none.
        last: Whether to finish each.

    Returns:
        The samples of each stream that are final now, ``(N,)`` float32, possibly none.

    Raises:
        VocabularyError: A unit is outside ``[0, n_units)``.
    """
    if isinstance(codec, BatchedStreams):
        return codec.advance(streams, pushes, last)
    waves = []
    for stream, units, is_last in zip(streams, pushes, last, strict=True):
        wave_N = stream.push(units)
        waves.append(np.concatenate([wave_N, stream.finish()]) if is_last else wave_N)
    return waves
