"""Requests are answered only under the server's own names, so that no page can reach it by rebinding its name."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Collection

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from slm_serve.errors import RequestError
from slm_serve.ops.refusal import refuse

LOOPBACK_NAMES = ("localhost", "ip6-localhost")
"""Names of this machine that resolve to it everywhere."""


def names_of(host: str) -> tuple[str, ...]:
    """Return the names under which a server at an address is reached, its own host name included."""
    return (host, socket.gethostname())


class HostCheck:
    """Refuses a request whose ``Host`` is a name that is not the server's.

    A page at ``evil.example`` whose name resolves to 127.0.0.1 is of the same origin as the server for the browser, so
    ``Origin`` does not tell them apart; ``Host`` does. An address is always accepted, because only a name can be
    rebound. Without ``Host`` (HTTP/1.0) no browser asks.

    Args:
        app: What is protected.
        allowed: Names beside ``localhost`` and everything below it; ``*`` lets all in.
    """

    def __init__(self, app: ASGIApp, allowed: Collection[str] = ()) -> None:
        self._app = app
        self._allowed = frozenset(name.lower().rstrip(".") for name in (*LOOPBACK_NAMES, *allowed))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer 403."""
        if scope["type"] in ("http", "websocket") and not self._is_ours(Headers(scope=scope).get("host", "")):
            text = "this server does not answer under that name; --allowed-host adds it."
            await refuse(RequestError(text, code="host_not_allowed", status=403), scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _is_ours(self, host: str) -> bool:
        if not host or "*" in self._allowed:
            return True
        name = _without_port(host).lower().rstrip(".")
        return name in self._allowed or name.endswith(".localhost") or _is_address(name)


def _without_port(host: str) -> str:
    if host.startswith("["):
        return host[1:].partition("]")[0]
    name, colon, port = host.rpartition(":")
    return name if colon and port.isdigit() else host


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
