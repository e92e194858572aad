"""Speak the script and turn it into units."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from slm_plugin.errors import DataError
from slm_plugin.records import Utterance
from slm_plugin.speech.audio import prepare
from slm_plugin.speech.espeak import Espeak
from slm_plugin.speech.interleave import Segment, interleave
from slm_plugin.speech.mel_kmeans import MelKmeansCodec
from world.script import Line

VOICE = "en-us"


@dataclass(frozen=True)
class Spoken:
    """A line with its units.

    Attributes:
        line: What was said.
        units: Units of the whole utterance, as the codec gives them.
        segments: Its words, each with its units.
    """

    line: Line
    units: tuple[int, ...]
    segments: tuple[Segment, ...]


def speak(lines: Iterable[Line], say: Callable[..., Utterance] | None = None) -> Iterator[tuple[Line, Utterance]]:
    """Speak lines one after the other; ``say`` is espeak-ng's unless given.

    Raises:
        DataError: The synthesiser gave other words than the text has, so their times are unknown.
    """
    say = Espeak().say if say is None else say
    for line in lines:
        utterance = say(line.text, voice=VOICE, words_per_minute=line.words_per_minute, pitch=line.pitch)
        if [span.word for span in utterance.words] != line.text.split():
            raise DataError(f"espeak-ng gave no time for every word of {line.text!r}; change the text.")
        yield line, utterance


def encode(line: Line, utterance: Utterance, codec: MelKmeansCodec) -> Spoken:
    """Return the units of a spoken line, and which of them belong to which word."""
    wave_N = at_rate(utterance, codec.sample_rate_hz)
    frame_units = codec.frame_units(wave_N)
    segments = interleave(utterance.words, frame_units.tolist(), codec.rate_hz, fold=codec.folds_runs)
    units = tuple(unit for segment in segments for unit in segment.units)
    assert units == codec.encode(wave_N).values, f"interleaving changed the units of {line.text!r}"
    return Spoken(line, units, tuple(segments))


def at_rate(utterance: Utterance, sample_rate_hz: int) -> np.ndarray:
    """Return the wave of an utterance at another rate, ``(N,)``."""
    return prepare(utterance.wave_N, utterance.sample_rate_hz, sample_rate_hz)
