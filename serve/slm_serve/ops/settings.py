"""How a server is set up, beside its model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from slm_serve.ops.limits import Limits
from slm_serve.ops.tracing import Tracing


@dataclass(frozen=True)
class Settings:
    """Settings of a server.

    Attributes:
        limits: Bounds.
        api_keys: Keys of which a client must give one; without any, every client is let in.
        cors_origins: Origins whose pages may use the server from a browser; none by default.
        allowed_hosts: Names under which the server answers beside ``localhost`` and addresses; ``*`` for all. They
            count only without keys.
        metrics_here: Whether ``/metrics`` is served beside the API (behind a key, where keys are asked for).
        web: Whether the page at ``/`` is served.
        tracing: Where traces go.
    """

    limits: Limits = field(default_factory=Limits)
    api_keys: Sequence[str] = ()
    cors_origins: Sequence[str] = ()
    allowed_hosts: Sequence[str] = ()
    metrics_here: bool = True
    web: bool = True
    tracing: Tracing = field(default_factory=Tracing)
