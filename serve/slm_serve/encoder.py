"""A recording in a request becomes units. Runs in a worker thread: it decodes and computes."""

from __future__ import annotations

import base64
import binascii
import io

import numpy as np
import soundfile

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
        RequestError: It is not base64, not audio, empty, too long or of too low a rate.
    """
    try:
        raw = base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError) as error:
        raise RequestError(f"the recording is not base64 ({error}).", f"{param}.data") from error
    if not raw:
        raise RequestError("the recording is empty.", f"{param}.data")
    if form == "pcm16":
        raw = _wav(raw, param)
    _check_length(raw, param)
    try:
        wave, rate_hz = decode(raw)
        wave_N = prepare(wave, rate_hz, codec.sample_rate_hz)
        units = codec.encode(wave_N).values
    except AudioError as error:
        raise RequestError(str(error), f"{param}.data") from error
    if not units:
        raise RequestError("the recording is too short to hold speech.", f"{param}.data")
    return units


def _wav(raw: bytes, param: str) -> bytes:
    """Give bare pcm16 samples a header."""
    if len(raw) % 2:
        raise RequestError("pcm16 needs two bytes a sample; the recording has an odd number.", f"{param}.data")
    file = io.BytesIO()
    soundfile.write(file, np.frombuffer(raw, "<i2"), PCM16_RATE_HZ, format="WAV", subtype="PCM_16")
    return file.getvalue()


def _check_length(raw: bytes, param: str) -> None:
    """Refuse long recordings by their header: a small file may decode to gigabytes."""
    try:
        length_s = soundfile.info(io.BytesIO(raw)).duration
    except soundfile.SoundFileError as error:
        raise RequestError(
            f"the recording cannot be decoded ({error}); wav, mp3, flac and ogg are accepted.", f"{param}.data"
        ) from error
    if length_s > MAX_CLIP_S:
        raise RequestError(
            f"the recording is {length_s:.1f} s long; at most {MAX_CLIP_S:.0f} s are accepted.", f"{param}.data"
        )
