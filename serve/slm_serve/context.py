"""Who asks, and what is known of the request so far; travels with the task, and with the tasks it starts."""

from __future__ import annotations

import re
import secrets
import time
from contextvars import ContextVar
from dataclasses import dataclass, field

_GIVEN_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")


def request_id(given: str = "") -> str:
    """Return the id that a client gave where it is a plain word of at most 64 characters, else a new one."""
    return given if _GIVEN_ID.fullmatch(given) else f"req_{secrets.token_hex(12)}"


@dataclass
class RequestContext:
    """What is known of a request, or of a session of several; parts of the server write to it as they learn.

    Attributes:
        id: Of the request, in its log lines and its ``x-request-id``.
        owner: Whose key it came with, as a digest; empty where keys are not asked for.
        started: Monotonic time in seconds at which it arrived.
        replica: The engine that answers, or that gave the spoken answer which the request refers to.
        error: Kind of the error that was told to the client, if one was.
        cancel: Why the answer was cut short, if it was.
        is_session: Whether it is a session, whose answers come long after its arrival.
    """

    id: str = field(default_factory=request_id)
    owner: str = ""
    started: float = field(default_factory=time.monotonic)
    replica: str | None = None
    error: str | None = None
    cancel: str | None = None
    is_session: bool = False


_CURRENT: ContextVar[RequestContext | None] = ContextVar("slm_request", default=None)


def current() -> RequestContext:
    """Return the request that this task works for; outside of one, a context that nobody else sees."""
    return _CURRENT.get() or RequestContext()


def enter(context: RequestContext) -> None:
    """Make this task, and the tasks it starts from now on, work for a request."""
    _CURRENT.set(context)


def current_id() -> str | None:
    """Return the id of the request that this task works for; None outside of one."""
    context = _CURRENT.get()
    return None if context is None else context.id
