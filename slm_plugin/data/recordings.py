"""Recordings in rows of data sets, as units."""

from __future__ import annotations

from typing import Any

from slm_plugin.speech import audio
from slm_plugin.speech.protocol import Codec


def recording_units(recording: Any, codec: Codec) -> list[int]:
    """Return the units of a recording; none for one that is too short to hold speech.

    Args:
        recording: A file's bytes or path; or a mapping with ``bytes`` or ``path``, or with ``array`` and
            ``sampling_rate`` in Hz, as data sets hold it.
        codec: What makes units.

    Raises:
        AudioError: The recording cannot be read or used.
    """
    wave, rate_hz = audio.read(recording)
    return list(codec.encode(audio.prepare(wave, rate_hz, codec.sample_rate_hz)).values)
