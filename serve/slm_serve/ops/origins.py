"""Web pages of other sites are kept out unless they are named: over HTTP and over WebSocket."""

from __future__ import annotations

from collections.abc import Collection
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from slm_serve.errors import RequestError
from slm_serve.ops.refusal import refuse

_READS = ("GET", "HEAD", "OPTIONS")


class OriginCheck:
    """Refuses what a page of another site sends: browsers let it out and only keep the answer from that page.

    A request without ``Origin`` comes from no browser, or from none that could be misled.

    Args:
        app: What is protected.
        allowed: Origins, such as ``https://example.org``, whose pages may use the server; ``*`` lets all in.
    """

    def __init__(self, app: ASGIApp, allowed: Collection[str] = ()) -> None:
        self._app = app
        self._allowed = frozenset(allowed)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer 403."""
        if scope["type"] == "websocket" or (scope["type"] == "http" and scope["method"] not in _READS):
            headers = Headers(scope=scope)
            origin = headers.get("origin")
            if origin is not None and not self._is_ours(origin, headers.get("host", "")):
                text = "pages of other sites may not use this server; --cors-origin names those that may."
                await refuse(RequestError(text, code="origin_not_allowed", status=403), scope, receive, send)
                return
        await self._app(scope, receive, send)

    def _is_ours(self, origin: str, host: str) -> bool:
        if "*" in self._allowed or origin in self._allowed:
            return True
        try:
            return urlsplit(origin).netloc.lower() == host.lower()
        except ValueError:
            # such as "http://[", which no browser sends
            return False
