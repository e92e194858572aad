"""Put the gateway together as an ASGI application."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from fastapi import APIRouter, FastAPI

from slm_serve import errors
from slm_serve.api import chat, health, metrics, models, page, realtime, speech, transcriptions
from slm_serve.ops import document
from slm_serve.ops.install import install
from slm_serve.ops.settings import Settings
from slm_serve.service import Service


def create_app(service: Service, api_keys: Sequence[str] = (), settings: Settings | None = None) -> FastAPI:
    """Return the application; it closes the service when it shuts down.

    Args:
        service: What the routes work with.
        api_keys: Keys of which a client must give one; without any, every client is let in.
        settings: Everything else; its own ``api_keys`` count where these are not given.
    """
    settings = settings or Settings(limits=service.limits)
    app = create_routes(settings)
    app.state.service = service
    install(app, service.metrics, settings, api_keys or settings.api_keys)
    return app


def create_routes(settings: Settings) -> FastAPI:
    """Return the application without what it works with: its routes, their document and the form of errors."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        await app.state.service.close()

    # the pages that FastAPI would offer load scripts from elsewhere
    app = FastAPI(title="slm_serve", lifespan=lifespan, docs_url=None, redoc_url=None)
    errors.install(app)
    for router in routers(settings):
        app.include_router(router)
    document.describe(app)
    return app


def routers(settings: Settings) -> list[APIRouter]:
    """Return the routes of a server, part by part."""
    parts = [chat, speech, transcriptions, realtime, models, health]
    if settings.metrics_here:
        parts.append(metrics)
    if settings.web:
        parts.append(page)
    return [part.router for part in parts]
