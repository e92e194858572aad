"""A recording in a request becomes units. Runs in a worker thread: it decodes and computes."""

from __future__ import annotations

import base64

import numpy as np

from slm_plugin.errors import AudioError
from slm_plugin.speech.audio import decode, prepare
from slm_plugin.speech.protocol import Codec
from slm_serve.errors import RequestError

MAX_CLIP_S = 120.0
PCM16_RATE_HZ = 24_000


def units_of(codec: Codec, data: str, form: str, param: str) -> tuple[int, ...]:
    """Return the units of a recording.

    Args:
        codec: Makes the units.
        data: The file in base64.
        form: ``pcm16`` for bare samples (mono, little-endian, 24 kHz); any other file says itself what it is.
        param: Where the request holds the recording, for messages.

    Raises:
        RequestError: It is not base64, not audio, too short, too long or of too low a rate.
    """
    try:
        raw = base64.b64decode(data, validate=True)
    except ValueError as error:
        raise RequestError(f"the recording is not base64 ({error}).", f"{param}.data") from None
    try:
        wave, rate_hz = _samples(raw) if form == "pcm16" else decode(raw, max_seconds=MAX_CLIP_S)
        units = codec.encode(prepare(wave, rate_hz, codec.sample_rate_hz, max_seconds=MAX_CLIP_S)).values
    except AudioError as error:
        raise RequestError(str(error), f"{param}.data", "invalid_audio") from None
    if not units:
        raise RequestError("the recording is too short to hold speech.", f"{param}.data", "invalid_audio")
    return units


def _samples(raw: bytes) -> tuple[np.ndarray, int]:
    if len(raw) % 2:
        raise AudioError("pcm16 has two bytes a sample; the recording has an odd number of bytes.")
    return np.frombuffer(raw, "<i2"), PCM16_RATE_HZ
