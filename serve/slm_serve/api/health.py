"""``GET /health``: whether a request would be answered now, and ``GET /health/live``: whether the process is."""

from __future__ import annotations

import asyncio
import logging
import time

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse

from slm_serve.service import Service

router = APIRouter()

VOCODER_S = 5.0
"""Seconds in which the vocoder must speak a unit, and for which its answer holds."""

_LOG = logging.getLogger("slm_serve.health")


@router.get("/health")
async def health(request: Request) -> JSONResponse:
    """Answer 200 where the engine answers and the vocoder speaks, else 503; for readiness."""
    service: Service = request.app.state.service
    engine, vocoder = await asyncio.gather(service.backend.healthy(), _speaks(request))
    parts = {"engine": "ok" if engine else "does not answer", "vocoder": "ok" if vocoder else "does not speak"}
    wrong = " and ".join(f"the {name} {state}" for name, state in parts.items() if state != "ok")
    return JSONResponse({"status": wrong or "ok", **parts}, status_code=503 if wrong else 200)


@router.get("/health/live")
async def live() -> dict[str, str]:
    """Answer 200: for liveness. A process whose engine is being started anew must not be killed for it."""
    return {"status": "ok"}


async def _speaks(request: Request) -> bool:
    """Tell whether the vocoder makes sound; asked at most once in :data:`VOCODER_S`."""
    service: Service = request.app.state.service
    until, spoke = getattr(request.app.state, "vocoder_spoke", (0.0, False))
    if time.monotonic() < until:
        return bool(spoke)
    try:
        async with asyncio.timeout(VOCODER_S):
            spoke = await service.in_worker(lambda: len(service.codec.stream().push([0])) >= 0)
    except Exception:
        _LOG.exception("the vocoder does not speak")
        spoke = False
    request.app.state.vocoder_spoke = (time.monotonic() + VOCODER_S, spoke)
    return spoke
