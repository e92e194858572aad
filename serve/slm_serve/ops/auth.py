"""API keys: read from a file, compared in constant time, asked for over HTTP and WebSocket."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable, Sequence
from pathlib import Path

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from slm_plugin.errors import ConfigError, Problem
from slm_serve.context import current
from slm_serve.errors import RequestError
from slm_serve.ops.refusal import refuse

OPEN_PATHS = ("/", "/health", "/health/live", "/openapi.json")
"""What everybody may ask for: the page, whether the server is well, and what it offers."""
OPEN_FOLDER = "/web/"
"""Files of the page."""
PROTOCOL_PREFIX = "openai-insecure-api-key."
"""How a browser, which cannot set headers of a WebSocket, gives its key: as a subprotocol, as with OpenAI's API."""


def read_keys(path: Path) -> list[str]:
    """Return the keys of a file, one a line; empty lines and lines that begin with ``#`` are passed over.

    Raises:
        ConfigError: The file cannot be read, or holds no key.
    """
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError([Problem("--api-key-file", f"{path} cannot be read ({error}).")]) from None
    keys = [line for line in lines if line and not line.startswith("#")]
    if not keys:
        raise ConfigError([Problem("--api-key-file", f"{path} holds no key; write one a line.")])
    return keys


class Keys:
    """Keys that are let in; only their digests are kept.

    Args:
        keys: The keys.
    """

    def __init__(self, keys: Iterable[str]) -> None:
        self._digests = [_digest(key.encode()) for key in keys]

    def owner(self, given: bytes) -> str | None:
        """Return who a key belongs to: the same short digest in every process; None for a wrong key.

        Every known key is compared in full, and digests are of one length, so that time tells nothing.
        """
        digest = _digest(given)
        found = sum(hmac.compare_digest(digest, known) for known in self._digests)
        return digest.hex()[:32] if found else None


def _digest(key: bytes) -> bytes:
    return hashlib.sha256(b"slm_serve key\0" + key).digest()


class KeyCheck:
    """Lets only requests with a known key pass, save those for :data:`OPEN_PATHS`.

    Args:
        app: What is protected.
        api_keys: Keys that are let in.
    """

    def __init__(self, app: ASGIApp, api_keys: Sequence[str]) -> None:
        self._app = app
        self._keys = Keys(api_keys)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on with its owner, or answer 401."""
        if scope["type"] == "lifespan" or _is_open(scope):
            await self._app(scope, receive, send)
            return
        given = _given(Headers(scope=scope))
        owner = self._keys.owner(given)
        if owner is None:
            text = "the API key is wrong." if given else "an API key is needed: Authorization: Bearer KEY."
            await refuse(RequestError(text, code="invalid_api_key", status=401), scope, receive, send)
            return
        current().owner = owner
        await self._app(scope, receive, send)


def _is_open(scope: Scope) -> bool:
    if scope["type"] != "http" or scope["method"] not in ("GET", "HEAD"):
        return False
    return scope["path"] in OPEN_PATHS or scope["path"].startswith(OPEN_FOLDER)


def _given(headers: Headers) -> bytes:
    scheme, _, key = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and key.strip():
        return key.strip().encode()
    for protocol in headers.get("sec-websocket-protocol", "").split(","):
        if protocol.strip().startswith(PROTOCOL_PREFIX):
            return protocol.strip().removeprefix(PROTOCOL_PREFIX).encode()
    return b""
