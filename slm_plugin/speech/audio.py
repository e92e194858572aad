"""Recordings from files, bytes and arrays as mono waves at a codec's rate; the policy is in ``policy.py``.

Shapes: ``N`` samples, ``C`` channels.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from slm_plugin.errors import AudioError
from slm_plugin.speech import containers, ogg
from slm_plugin.speech.policy import AudioPolicy, condition
from slm_plugin.speech.resampling import resample

__all__ = ["FORMATS", "SUFFIXES", "decode", "is_unknown_format", "prepare", "read", "resample"]

FORMATS = f"wav, flac, ogg, opus, mp3, {containers.FORMATS}"
SUFFIXES = (".wav", ".flac", ".ogg", ".opus", ".mp3", *containers.SUFFIXES)
"""Of files in these formats, in small letters."""

_UNRECOGNISED, _UNSUPPORTED_ENCODING = 1, 4
"""Error codes of libsndfile: no format that it knows, and a format that it knows with a codec that it does not."""


def decode(
    source: bytes | str | Path,
    max_seconds: float = 3600.0,
    max_bytes: int | None = None,
    max_decoded_bytes: int | None = None,
) -> tuple[np.ndarray, int]:
    """Read a recording: with libsndfile, and containers that it does not know with PyAV.

    Args:
        source: The file's bytes, or its path.
        max_seconds: Longest recording that is accepted; longer ones are refused before they are read.
        max_bytes: Largest file that is accepted; None for any.
        max_decoded_bytes: Largest size of its float32 samples; None for any.

    Returns:
        Float32 samples of shape ``(N, C)`` and their rate in Hz.

    Raises:
        AudioError: It is missing, too large, too long, or not a recording in one of :data:`FORMATS`.
    """
    import soundfile

    name = "the recording" if isinstance(source, bytes) else str(source)
    if not isinstance(source, bytes) and not Path(source).is_file():
        raise AudioError(f"{name} does not exist.")
    n_bytes = len(source) if isinstance(source, bytes) else Path(source).stat().st_size
    if n_bytes == 0:
        raise AudioError(f"{name} has no bytes; send {FORMATS}.")
    if max_bytes is not None and n_bytes > max_bytes:
        raise AudioError(f"{name} has {n_bytes} bytes, more than the limit of {max_bytes}.")
    ogg.require_whole_headers(_start(source), name)
    try:
        with soundfile.SoundFile(io.BytesIO(source) if isinstance(source, bytes) else str(source)) as file:
            # the header may lie about the length, so no more than the limit is ever read
            limit = int(max_seconds * file.samplerate)
            if max_decoded_bytes is not None:
                n_samples = min(file.frames, limit + 1)
                containers.check_decoded_bytes(4 * n_samples * file.channels, max_decoded_bytes)
            wave_NC = file.read(limit + 1, dtype="float32", always_2d=True)
            rate_hz = int(file.samplerate)
    except (soundfile.LibsndfileError, TypeError, ValueError, RuntimeError) as error:
        if is_unknown_format(error):
            try:
                return containers.decode_container(source, name, max_seconds, max_decoded_bytes)
            except containers.UnknownContainerError:
                pass
        # libsndfile's own words, without the object that it read from
        reason = str(getattr(error, "error_string", error)).rstrip(".")
        raise AudioError(f"{name} cannot be read ({reason}); send {FORMATS}.") from None
    if len(wave_NC) > limit:
        raise AudioError(f"{name} is longer than the limit of {max_seconds:g} seconds.")
    return wave_NC, rate_hz


def _start(source: bytes | str | Path) -> bytes:
    """Return the beginning of a file: all of the headers if it is Ogg."""
    if isinstance(source, bytes):
        return source[: ogg.MOST_HEADER_BYTES] if source.startswith(ogg.MAGIC) else b""
    with Path(source).open("rb") as file:
        magic = file.read(len(ogg.MAGIC))
        return magic + file.read(ogg.MOST_HEADER_BYTES) if magic == ogg.MAGIC else b""


def is_unknown_format(error: Exception) -> bool:
    """Return whether libsndfile refused a file because it does not know the format, not because it is damaged."""
    return getattr(error, "code", None) in (_UNRECOGNISED, _UNSUPPORTED_ENCODING)


def read(recording: Any) -> tuple[np.ndarray, int]:
    """Return samples and rate of a recording in any of the forms that data sets hold.

    Args:
        recording: A path, the bytes of a file, or audio of ``datasets``: ``{"bytes", "path"}`` or
            ``{"array", "sampling_rate"}``.

    Returns:
        Samples and their rate in Hz: float32 ``(N, C)`` from files and bytes; arrays, ``(N,)`` or ``(N, C)``, as
        they are.

    Raises:
        AudioError: It is of another form or cannot be read.
    """
    if isinstance(recording, Mapping):
        if recording.get("array") is not None:
            return np.asarray(recording["array"]), int(recording["sampling_rate"])
        source = recording.get("bytes") or recording.get("path")
        if source:
            return decode(source)
    if isinstance(recording, str | bytes | Path):
        return decode(recording)
    raise AudioError(f"a recording is a file, bytes, or samples with a rate, got {type(recording).__name__}.")


def prepare(
    wave: np.ndarray, rate_hz: int | None, target_rate_hz: int, max_seconds: float | None = None
) -> np.ndarray:
    """Return a recording as a codec takes it: mono float32, ``(N,)``; an empty or very short one is empty.

    Args:
        wave: Samples of shape ``(N,)`` or ``(N, C)``; integers are scaled to [-1, 1).
        rate_hz: Their rate; None is refused.
        target_rate_hz: The rate to return.
        max_seconds: Longest recording that is accepted; None for any.

    Raises:
        AudioError: Anything that the policy refuses.
    """
    return condition(wave, rate_hz, target_rate_hz, AudioPolicy(max_seconds=max_seconds)).wave_N
