"""Put the gateway together as an ASGI application."""

from __future__ import annotations

import hmac
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from fastapi import FastAPI
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from slm_serve import errors
from slm_serve.api import chat, health, models
from slm_serve.errors import RequestError, error_response
from slm_serve.service import Service


def create_app(service: Service, api_keys: Sequence[str] = ()) -> FastAPI:
    """Return the application; it closes the service when it shuts down.

    Args:
        service: What the routes work with.
        api_keys: Keys of which a client must give one; without any, every client is let in.
    """

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await service.close()

    app = FastAPI(title="slm_serve", lifespan=lifespan)
    app.state.service = service
    errors.install(app)
    for route in (chat, models, health):
        app.include_router(route.router)
    if api_keys:
        app.add_middleware(KeyCheck, api_keys=api_keys)
    return app


class KeyCheck:
    """Lets only requests with a known key reach ``/v1``.

    Args:
        app: What is protected.
        api_keys: Keys that are let in.
    """

    def __init__(self, app: ASGIApp, api_keys: Sequence[str]) -> None:
        self._app = app
        self._keys = [key.encode() for key in api_keys]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer 401."""
        if scope["type"] == "http" and scope["path"].startswith("/v1"):
            scheme, _, key = Headers(scope=scope).get("authorization", "").partition(" ")
            given = key.strip().encode() if scheme.lower() == "bearer" else b""
            # every key is compared in full, so that time tells nothing
            if sum(hmac.compare_digest(given, known) for known in self._keys) == 0:
                text = "the API key is wrong." if given else "an API key is needed: Authorization: Bearer KEY."
                await error_response(RequestError(text, code="invalid_api_key", status=401))(scope, receive, send)
                return
        await self._app(scope, receive, send)
