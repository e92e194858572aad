"""How much one client, and all of them together, may ask of the server."""

from __future__ import annotations

import math
from dataclasses import dataclass

DRAIN_S = 20
"""Seconds that answers may go on after the signal to end."""

_REALTIME_RATE_HZ = 24_000
_CLIPS = 5
"""How many of the longest recordings one request may hold."""


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
    json_values: int = 100_000
    """Most values in the JSON of a request or of a WebSocket message, counted by its commas and brackets."""
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

    @property
    def request_audio_s(self) -> float:
        """Most seconds of all recordings of one request, those of earlier turns included."""
        return _CLIPS * self.clip_s

    @property
    def frame_bytes(self) -> int:
        """Largest WebSocket message in bytes: a recording of ``clip_s`` as pcm16 at 24 kHz in base64, and 64 KiB."""
        recording = 4 * math.ceil(self.clip_s * 2 * _REALTIME_RATE_HZ / 3)
        return min(self.body_bytes, recording + 2**16)


DEFAULT = Limits()
"""Bounds where nothing else is asked for."""
