"""Put the layers around the routes, in their order."""

from __future__ import annotations

from collections.abc import Sequence

from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware

from slm_serve.ops.access import Access
from slm_serve.ops.auth import KeyCheck
from slm_serve.ops.deadlines import Deadlines
from slm_serve.ops.gate import Admission
from slm_serve.ops.hosts import HostCheck
from slm_serve.ops.metrics import Metrics
from slm_serve.ops.origins import OriginCheck
from slm_serve.ops.settings import Settings


def install(app: FastAPI, metrics: Metrics, settings: Settings, api_keys: Sequence[str]) -> None:
    """Add the layers; from outside in: access log, times, CORS, hosts, origins, keys, places.

    Args:
        app: The application.
        metrics: Where the layers count.
        settings: How they are set.
        api_keys: Keys that are let in; without any, everybody is.
    """
    # the last one added is the outermost
    app.add_middleware(Admission, limits=settings.limits, metrics=metrics)
    if api_keys:
        app.add_middleware(KeyCheck, api_keys=api_keys)
    app.add_middleware(OriginCheck, allowed=settings.cors_origins)
    if not api_keys:
        # a page that rebinds its name has no key
        app.add_middleware(HostCheck, allowed=settings.allowed_hosts)
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(settings.cors_origins),
            allow_methods=["GET", "POST"],
            # of the origins that are named: OpenAI's SDK sends a dozen of its own (x-stainless-*, openai-*)
            allow_headers=["*"],
            expose_headers=["x-request-id", "retry-after"],
        )
    app.add_middleware(Deadlines, limits=settings.limits)
    app.add_middleware(Access, metrics=metrics, tracing=settings.tracing)
