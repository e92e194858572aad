"""Recordings in containers that libsndfile does not read, by PyAV: m4a, mp4, webm, aac, 3gp, amr, video files.

Nothing but the bytes of the file is read: FFmpeg gets a file object instead of a name, the first bytes decide which
demuxer runs, only the decoders of :data:`DECODERS` may run, and pictures are never decoded. A header that promises
too much is refused before the first sample, and samples are counted while they are decoded.

Shapes: ``N`` samples, ``C`` channels.
"""

from __future__ import annotations

import io
import re
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from slm_plugin.errors import AudioError
from slm_plugin.speech.samples import MAX_CHANNELS

if TYPE_CHECKING:
    import av
    import av.audio
    import av.container

FORMATS = "m4a, mp4, webm, aac, 3gp, amr or the audio of a video file"
SUFFIXES = (
    ".m4a", ".mp4", ".webm", ".aac", ".3gp", ".3g2", ".amr", ".mov", ".mkv", ".mka", ".avi", ".flv", ".wma", ".caf",
)  # fmt: skip
"""Of files in these formats, in small letters; what is in a file decides, not its name."""

_BOXES = (b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"pnot")
"""Kinds of the first box of an mp4; those before ``ftyp`` came into use have others."""

_HEADS = {
    b"\x1a\x45\xdf\xa3": "matroska",
    b"#!AMR": "amr",
    b"FLV\x01": "flv",
    b"caff": "caf",
    b"\x30\x26\xb2\x75": "asf",
    b"OggS": "ogg",
}
"""First bytes -> FFmpeg's demuxer. None of the demuxers here opens other files: playlists such as HLS and lists of
pictures have none, and mov follows no references to other files unless it is told to."""

DECODERS = (
    "aac", "aac_latm", "alac", "amrnb", "amrwb", "libopencore_amrnb", "libopencore_amrwb", "opus", "libopus", "vorbis",
    "libvorbis", "mp3", "mp3float", "mp2", "mp2float", "flac", "ac3", "eac3", "speex", "libspeex", "wmav1", "wmav2",
    "adpcm_ima_qt", "adpcm_ima_wav", "adpcm_ms", "gsm", "gsm_ms", "nellymoser", "pcm_alaw", "pcm_mulaw", "pcm_u8",
    "pcm_s8", "pcm_s16le", "pcm_s16be", "pcm_s24le", "pcm_s24be", "pcm_s32le", "pcm_s32be", "pcm_f32le", "pcm_f32be",
)  # fmt: skip
"""FFmpeg's names of decoders of sound."""

FRAMES_PER_SECOND = 1000
"""Frames that a second of all streams together may have; an Opus frame lasts 2.5 ms and more."""

MORE_FRAMES = 20_000
"""Frames that a file of any length may have."""

MAX_TABLES = 1 << 26
"""Bytes of a box with tables at most."""

_ONE_AND_ONE = struct.pack(">II", 1, 1)
"""One entry in the table of durations, and 1 as the duration."""

MAX_STREAMS = 64
"""Streams of a file at most: sound, pictures and subtitles."""


class UnknownContainerError(AudioError):
    """The file is in none of the containers that are read here."""


class _BytesOnly(io.RawIOBase):
    """A file without a name, so that FFmpeg can derive no path from it."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def read(self, size: int = -1) -> bytes:
        return self._file.read(size)

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True


def decode_container(
    source: bytes | str | Path, name: str, max_seconds: float, max_decoded_bytes: int | None = None
) -> tuple[np.ndarray, int]:
    """Read the sound of a container.

    Args:
        source: The file's bytes, or its path.
        name: What messages call it.
        max_seconds: Longest recording that is accepted.
        max_decoded_bytes: Largest size of its float32 samples; None for any.

    Returns:
        Float32 samples of shape ``(N, C)`` and their rate in Hz.

    Raises:
        AudioError: It is none of these containers, has no or several sound streams, is too long or too large, or is
            damaged.
    """
    blocks = []
    rate_hz = 0
    for block_NC, rate_hz in container_blocks(source, name, max_seconds, max_decoded_bytes):  # noqa: B007
        blocks.append(block_NC)
    return np.concatenate(blocks), rate_hz


def container_blocks(
    source: bytes | str | Path, name: str, max_seconds: float, max_decoded_bytes: int | None = None
) -> Iterator[tuple[np.ndarray, int]]:
    """Read the sound of a container frame by frame; arguments and errors of :func:`decode_container`.

    Yields:
        Float32 samples ``(N, C)`` and their rate in Hz, the same for all; at least one block.
    """
    with io.BytesIO(source) if isinstance(source, bytes) else Path(source).open("rb") as file:
        yield from _blocks(file, name, _Bounds(name, max_seconds, max_decoded_bytes))


def _blocks(file: BinaryIO, name: str, bounds: _Bounds) -> Iterator[tuple[np.ndarray, int]]:
    import av

    demuxer = _demuxer(file.read(12))
    if demuxer is None:
        raise UnknownContainerError(f"{name} is in none of the formats {FORMATS}.")
    if demuxer == "mov":
        bounds.check_tables(declared_frames(file))
    file.seek(0)
    allowed = {
        "format_whitelist": "matroska,webm" if demuxer == "matroska" else demuxer,
        "codec_whitelist": ",".join(DECODERS),
        # an empty list would allow every protocol
        "protocol_whitelist": "none",
        "max_streams": str(MAX_STREAMS),
    }
    try:
        container = av.open(_BytesOnly(file), "r", format=demuxer, container_options=allowed, metadata_errors="ignore")
    except (av.FFmpegError, OSError, ValueError, RuntimeError) as error:
        raise AudioError(f"{name} cannot be read ({_reason(error)}); it is cut off or damaged.") from None
    try:
        with container:
            stream = _sound_stream(container, name)
            bounds.check_declared(container, stream)
            for frame in container.decode(stream):
                samples_NC = _samples(frame)
                bounds.add(samples_NC.shape, frame.sample_rate)
                yield samples_NC, frame.sample_rate
            if not bounds.n_samples:
                raise AudioError(f"{name} has a sound stream without sound.")
    except (av.FFmpegError, OSError, ValueError, RuntimeError) as error:
        raise AudioError(f"{name} cannot be read ({_reason(error)}); it is damaged.") from None


def _demuxer(head: bytes) -> str | None:
    """Return FFmpeg's name of what reads a file with these first 12 bytes; None if nothing here does."""
    if head[4:8] in _BOXES:
        return "mov"
    if head[:4] == b"RIFF":
        return {b"AVI ": "avi", b"WAVE": "wav"}.get(head[8:12])
    # a frame of ADTS: 12 bits of one, then a version and two bits of zero
    if len(head) > 2 and head[0] == 0xFF and head[1] & 0xF6 == 0xF0:
        return "aac"
    return next((name for magic, name in _HEADS.items() if head.startswith(magic)), None)


def _reason(error: Exception) -> str:
    return " ".join(str(getattr(error, "strerror", None) or error).split()).rstrip(".")


def declared_frames(file: BinaryIO) -> int:
    """Return how many frames the tables of an mp4 declare, of all streams.

    FFmpeg allocates 24 bytes for each of them when it opens the file, and a table of frames of one size takes 12
    bytes whatever their number is: 10 kB can ask for gigabytes.

    Raises:
        AudioError: The tables are compressed.
    """
    tables = b"".join(_boxes(file))
    if b"cmov" in tables:
        raise AudioError("the tables of the recording are compressed, which is not accepted.")
    n_frames = 0
    for match in re.finditer(rb"stsz|stz2|trun", tables):
        numbers = tables[match.end() + 4 : match.end() + 12].ljust(8, b"\0")
        first, second = struct.unpack(">II", numbers)
        count = first if match[0] == b"trun" else second
        timing = tables.rfind(b"stts", 0, match.start()) if match[0] == b"stsz" else -1
        # uncompressed sound has a frame for each sample, of which FFmpeg takes 1,024 and more together
        whole = timing >= 0 and tables[timing + 8 : timing + 12] + tables[timing + 16 : timing + 20] == _ONE_AND_ONE
        n_frames += count // 1024 if whole else count
    return n_frames


def _boxes(file: BinaryIO) -> Iterator[bytes]:
    """Yield the boxes at the top of an mp4, except those that hold the frames themselves."""
    file.seek(0)
    while len(head := file.read(8)) == 8:
        size, kind = struct.unpack(">I4s", head)
        n_head = 8
        if size == 1:
            size, n_head = struct.unpack(">Q", file.read(8).ljust(8, b"\0"))[0], 16
        if kind == b"mdat" and size >= n_head:
            file.seek(size - n_head, io.SEEK_CUR)
        else:
            # a size of 0 means up to the end
            yield head + file.read(size - n_head if n_head <= size <= MAX_TABLES else MAX_TABLES)


def _sound_stream(container: av.container.InputContainer, name: str) -> av.AudioStream:
    """Return the only sound stream of a container, ready to be decoded in this thread."""
    streams = container.streams.audio
    if len(streams) != 1:
        found = "no sound stream" if not streams else f"{len(streams)} sound streams"
        raise AudioError(f"{name} has {found}; one is accepted.")
    stream = streams[0]
    codec = stream.codec_context
    if codec is None or codec.name not in DECODERS:
        raise AudioError(
            f"{name} holds sound of the kind {codec.name if codec else 'unknown'}, which is not accepted."
        )
    codec.thread_count = 1
    return stream


class _Bounds:
    """Counts the samples of a recording against what is accepted."""

    def __init__(self, name: str, max_seconds: float, max_decoded_bytes: int | None) -> None:
        self._name = name
        self._max_seconds = max_seconds
        self._max_bytes = max_decoded_bytes
        self._max_frames = int(FRAMES_PER_SECOND * max_seconds) + MORE_FRAMES
        self._form: tuple[int, int] | None = None
        self.n_samples = 0

    def check_tables(self, n_frames: int) -> None:
        """Refuse an mp4 whose tables declare more frames than a recording of the longest length can have."""
        if n_frames > self._max_frames:
            raise AudioError(
                f"{self._name} declares {n_frames} frames, more than {self._max_frames}: it is damaged, or longer than"
                f" the limit of {self._max_seconds:g} seconds."
            )

    def check_declared(self, container: av.container.InputContainer, stream: av.AudioStream) -> None:
        """Refuse what the header declares to be too long or too large."""
        seconds = 0.0
        if stream.duration is not None and stream.time_base is not None:
            seconds = float(stream.duration * stream.time_base)
        elif container.duration is not None:
            seconds = container.duration / 1e6
        # encoders round up to whole frames, of 0.15 s at most
        if seconds > self._max_seconds + 0.2:
            self._refuse_length()
        self._check_size(int(seconds * (stream.rate or 0)), stream.channels)

    def add(self, shape: tuple[int, ...], rate_hz: int) -> None:
        """Count decoded samples."""
        self._form = self._form or (shape[1], rate_hz)
        if self._form != (shape[1], rate_hz):
            raise AudioError(f"{self._name} changes its sampling rate or its channels on the way.")
        self.n_samples += shape[0]
        if self.n_samples > self._max_seconds * rate_hz:
            self._refuse_length()
        self._check_size(self.n_samples, shape[1])

    def _check_size(self, n_samples: int, n_channels: int) -> None:
        if n_channels > MAX_CHANNELS:
            raise AudioError(f"{self._name} has {n_channels} channels; 1 to {MAX_CHANNELS} are accepted.")
        if self._max_bytes is not None:
            check_decoded_bytes(4 * n_samples * n_channels, self._max_bytes)

    def _refuse_length(self) -> None:
        raise AudioError(f"{self._name} is longer than the limit of {self._max_seconds:g} seconds.")


def check_decoded_bytes(n_bytes: int, limit: int) -> None:
    """Refuse a recording that is too large once it is decoded to float32.

    Raises:
        AudioError: ``n_bytes`` is above ``limit``.
    """
    if n_bytes > limit:
        raise AudioError(
            f"the recording has {n_bytes / 2**20:.0f} MiB when it is decoded, the limit is"
            f" {limit / 2**20:g} MiB; send fewer channels or a lower rate."
        )


def _samples(frame: av.audio.AudioFrame) -> np.ndarray:
    """Return the samples of a frame as float32, ``(N, C)``, integers scaled to [-1, 1)."""
    raw: np.ndarray[Any, Any] = frame.to_ndarray()
    samples_NC = raw.T if frame.format.is_planar else raw.reshape(-1, len(frame.layout.channels))
    if samples_NC.dtype.kind == "f":
        return samples_NC.astype(np.float32)
    if samples_NC.dtype.kind == "u":
        return ((samples_NC.astype(np.float32)) - 128.0) / 128.0
    return (samples_NC / -float(np.iinfo(samples_NC.dtype).min)).astype(np.float32)
