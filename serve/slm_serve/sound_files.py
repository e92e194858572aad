"""Files of sound: whole, or written while their samples come.

PyAV brings FFmpeg's encoders (the host needs it too). A stream cannot go back to its head, so a streamed WAV
says "length unknown" (all ones), as OpenAI's does, and a streamed MP3 keeps the encoder's silence of about
25 ms in front. A whole file has neither: :func:`pack` writes those.
"""

from __future__ import annotations

import io
import struct
from typing import TYPE_CHECKING, Literal

import numpy as np
import soundfile

from slm_serve.errors import RequestError
from slm_serve.voice import RATE_HZ

if TYPE_CHECKING:
    import av
    import av.audio

Form = Literal["mp3", "opus", "aac", "flac", "wav", "pcm"]

MEDIA_TYPES: dict[str, str] = {
    "mp3": "audio/mpeg",
    "opus": "audio/ogg",
    "aac": "audio/aac",
    "flac": "audio/flac",
    "wav": "audio/wav",
    "pcm": "audio/pcm",
}

# container, encoder, sample format
_ENCODERS = {
    "mp3": ("mp3", "libmp3lame", "fltp"),
    "opus": ("ogg", "libopus", "flt"),
    "aac": ("adts", "aac", "fltp"),
    "flac": ("flac", "flac", "s16"),
}
# container and samples of a whole file
_WHOLE = {
    "wav": ("WAV", "PCM_16"),
    "flac": ("FLAC", "PCM_16"),
    "mp3": ("MP3", "MPEG_LAYER_III"),
    "opus": ("OGG", "OPUS"),
}
_UNKNOWN = 0xFFFFFFFF


def has_encoder(form: str) -> bool:
    """Tell whether FFmpeg can write a form here."""
    if form not in _ENCODERS:
        return True
    import av

    return _ENCODERS[form][1] in av.codecs_available


def require_encoder(form: str, param: str) -> None:
    """Refuse a form that cannot be written here.

    Raises:
        RequestError: FFmpeg has no encoder for it.
    """
    if not has_encoder(form):
        text = f"{form} cannot be written here: PyAV's FFmpeg lacks the encoder {_ENCODERS[form][1]!r}."
        raise RequestError(text, param, "unsupported_value")


def make_encoder(form: str) -> SoundFile:
    """Return a fresh file of a form, mono at 24 kHz. Blocking use only, in a worker thread."""
    if form == "pcm":
        return SoundFile()
    return WavFile() if form == "wav" else CompressedFile(form)


def pack(samples: bytes, form: str) -> bytes:
    """Put pcm16 samples at :data:`slm_serve.voice.RATE_HZ` into a whole wav, flac, mp3, opus, aac or pcm16."""
    if form == "pcm16":
        return samples
    if form == "aac":
        file = make_encoder(form)
        return file.push(samples) + file.finish()
    container, subtype = _WHOLE[form]
    # the compressed containers cannot hold nothing, and a file that opens is better than an empty one
    wave_N = np.frombuffer(samples or b"\0\0", "<i2")
    target = io.BytesIO()
    soundfile.write(target, wave_N, RATE_HZ, format=container, subtype=subtype)
    return target.getvalue()


class SoundFile:
    """Bare pcm16 samples; the other files are made like it."""

    def push(self, samples: bytes) -> bytes:
        """Take further pcm16 samples; return the bytes of the file that are final now, possibly none."""
        return samples

    def finish(self) -> bytes:
        """Return the end of the file."""
        return b""


class WavFile(SoundFile):
    """A WAV whose length is unknown when its head is written."""

    def __init__(self) -> None:
        format_chunk = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, RATE_HZ, 2 * RATE_HZ, 2, 16)
        riff, data = struct.pack("<4sI4s", b"RIFF", _UNKNOWN, b"WAVE"), struct.pack("<4sI", b"data", _UNKNOWN)
        self._head = riff + format_chunk + data

    def push(self, samples: bytes) -> bytes:
        """Return the samples, behind the head the first time."""
        head, self._head = self._head, b""
        return head + samples

    def finish(self) -> bytes:
        """Return the head where nothing was pushed."""
        return self.push(b"")


class CompressedFile(SoundFile):
    """A file that FFmpeg compresses.

    Args:
        form: One of mp3, opus, aac, flac.
    """

    def __init__(self, form: str) -> None:
        import av

        container, codec, self._format = _ENCODERS[form]
        self._bytes = _Written()
        # what would be written at the head once the end is known; and pages no longer than a short chunk
        options = {"mp3": {"write_xing": "0"}, "opus": {"page_duration": "200000"}}.get(form, {})
        self._file: av.container.OutputContainer = av.open(
            self._bytes, "w", format=container, container_options=options
        )
        stream = self._file.add_stream(codec, rate=RATE_HZ, layout="mono", format=self._format)
        assert isinstance(stream, av.AudioStream)
        self._stream = stream
        self._resampler = av.AudioResampler(self._format, "mono", RATE_HZ)
        self._n_samples = 0

    def push(self, samples: bytes) -> bytes:
        """Return what the encoder and the container let go."""
        if samples:
            self._encode(samples)
        return self._bytes.take()

    def finish(self) -> bytes:
        """Return the rest; a file of no samples holds one, for some containers cannot hold nothing."""
        if not self._n_samples:
            self._encode(b"\0\0")
        for frame in self._resampler.resample(None):
            self._file.mux(self._stream.encode(frame))
        self._file.mux(self._stream.encode(None))
        self._file.close()
        return self._bytes.take()

    def _encode(self, samples: bytes) -> None:
        import av

        frame = av.AudioFrame.from_ndarray(np.frombuffer(samples, "<i2").reshape(1, -1), "s16", "mono")
        frame.sample_rate = RATE_HZ
        frame.pts = self._n_samples
        self._n_samples += frame.samples
        for ready in self._resampler.resample(frame):
            self._file.mux(self._stream.encode(ready))


class _Written(io.RawIOBase):
    """What was written since it was last taken; it cannot go back, and says so."""

    def __init__(self) -> None:
        self._parts = bytearray()

    def writable(self) -> bool:
        return True

    def write(self, data: bytes) -> int:  # type: ignore[override]  # bytes are all that PyAV writes
        self._parts += data
        return len(data)

    def take(self) -> bytes:
        parts = bytes(self._parts)
        self._parts.clear()
        return parts
