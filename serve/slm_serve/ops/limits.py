"""How much one client, and all of them together, may ask of the server."""

from __future__ import annotations

import io
from dataclasses import dataclass

DRAIN_S = 20
"""Seconds that answers may go on after the signal to end."""


@dataclass(frozen=True)
class Limits:
    """Bounds of a server; what exceeds one is refused by name, never cut in silence."""

    clip_s: float = 120.0
    """Longest recording in seconds."""
    body_bytes: int = 25 * 2**20
    """Largest request in bytes, recordings in base64 included."""
    decoded_bytes: int = 128 * 2**20
    """Largest recording in bytes once it is decoded to float32: what a small file may grow to."""
    units: int = 15_000
    """Most units of one answer, after which it ends with ``finish_reason: length``: 5 minutes at 50 Hz."""
    streams: int = 64
    """Answers that are made at the same time."""
    queue: int = 128
    """Requests that wait for one of those places; a further one is told 429 and when to come back."""
    sessions: int = 64
    """WebSocket sessions at the same time."""
    connections: int = 2048
    """Open connections; a further one is answered 503."""
    header_bytes: int = 64 * 2**10
    """Largest request line with headers, in bytes."""
    header_s: float = 15.0
    """Seconds that a connection may be without a complete request, resting between two included, and an unread
    answer without a reader."""
    body_s: float = 60.0
    """Seconds that a request's body may take to arrive."""
    stall_s: float = 30.0
    """Seconds that a reader of a stream may take nothing."""
    total_s: float = 600.0
    """Seconds from a request to the end of its answer, the wait in the queue included."""
    session_s: float = 3600.0
    """Seconds that a WebSocket session may last."""
    session_idle_s: float = 300.0
    """Seconds that a WebSocket client may say nothing."""


DEFAULT = Limits()
"""Bounds where nothing else is asked for."""


def check_decoded_size(raw: bytes, limits: Limits) -> None:
    """Refuse a file whose header announces more samples than may be held; what is no recording passes.

    Bytes of a decoded recording are ``4 * channels * samples``, with the samples of at most ``clip_s`` seconds,
    for more are never read.

    Args:
        raw: The file.
        limits: Its ``decoded_bytes`` and ``clip_s`` count.

    Raises:
        AudioError: It would be too large.
    """
    # here, because the command line reads this file for the defaults of its options
    import soundfile

    from slm_plugin.speech.containers import check_decoded_bytes

    try:
        with soundfile.SoundFile(io.BytesIO(raw)) as file:
            n_samples = min(file.frames, int(limits.clip_s * file.samplerate) + 1)
            n_bytes = 4 * file.channels * n_samples
    except (soundfile.LibsndfileError, TypeError, ValueError, RuntimeError):
        # said in better words by whoever reads it
        return
    check_decoded_bytes(n_bytes, limits.decoded_bytes)
