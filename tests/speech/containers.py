"""Recordings in containers, written with PyAV."""

from __future__ import annotations

import io
from typing import Any

import av
import numpy as np

FORMS = {
    "webm": ("webm", "libopus", 48_000),
    "mka": ("matroska", "libvorbis", 44_100),
    "m4a": ("ipod", "aac", 44_100),
    "mp4": ("mp4", "aac", 48_000),
    "alac": ("mp4", "alac", 16_000),
    "aac": ("adts", "aac", 16_000),
    "3gp": ("3gp", "libopencore_amrnb", 8_000),
    "amr": ("amr", "libopencore_amrnb", 8_000),
    "mov": ("mov", "pcm_s16le", 16_000),
    "avi": ("avi", "mp3", 44_100),
    "flv": ("flv", "aac", 44_100),
}
"""File name ending -> container, encoder, rate in Hz."""


def tone(rate_hz: int, seconds: float) -> np.ndarray:
    """Return a tone of 440 Hz with amplitude 0.5, ``(N,)``."""
    return 0.5 * np.sin(2 * np.pi * 440 * np.arange(int(rate_hz * seconds)) / rate_hz)


def container(
    ending: str,
    seconds: float = 1.0,
    layout: str = "mono",
    streams: int = 1,
    video: bool = False,
    options: dict[str, str] | None = None,
) -> bytes:
    """Return a file of one of :data:`FORMS` that holds a tone in every channel of every sound stream."""
    kind, encoder, rate_hz = FORMS[ending]
    target = io.BytesIO()
    with av.open(target, "w", format=kind, container_options=options or {}) as file:
        picture: Any = file.add_stream("mpeg4", rate=10) if video else None
        if video:
            picture.width = picture.height = 32
            picture.pix_fmt = "yuv420p"
        sounds: list[Any] = [file.add_stream(encoder, rate=rate_hz, layout=layout) for _ in range(streams)]
        if video:
            for _ in range(int(10 * seconds)):
                file.mux(picture.encode(av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8), "rgb24")))
            file.mux(picture.encode(None))
        for sound in sounds:
            n_channels = len(sound.codec_context.layout.channels)
            samples = np.repeat((tone(rate_hz, seconds) * 32_767).astype("<i2"), n_channels)[None]
            frame = av.AudioFrame.from_ndarray(samples, "s16", layout)
            frame.sample_rate = rate_hz
            queue = av.AudioFifo()
            resampler = av.AudioResampler(sound.format.name, layout, rate_hz)
            for part in [*resampler.resample(frame), *resampler.resample(None)]:
                part.pts = None
                queue.write(part)
            size = sound.codec_context.frame_size or 1024
            while (part := queue.read(size) or queue.read()) is not None:
                file.mux(sound.encode(part))
            file.mux(sound.encode(None))
    return target.getvalue()
