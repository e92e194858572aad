"""``GET /health``: whether a request would be answered now, and ``GET /health/live``: whether the process is."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse

from slm_serve.service import Service

router = APIRouter()


@router.get("/health")
async def health(request: Request) -> JSONResponse:
    """Answer 200 if the engine answers and the vocoder speaks, else 503; for readiness."""
    service: Service = request.app.state.service
    now = await service.health.current()
    parts = {"engine": "ok" if now.engine else "does not answer", "vocoder": "ok" if now.vocoder else "does not speak"}
    wrong = " and ".join(f"the {name} {state}" for name, state in parts.items() if state != "ok")
    return JSONResponse({"status": wrong or "ok", **parts}, status_code=503 if wrong else 200)


@router.get("/health/live")
async def live(request: Request) -> JSONResponse:
    """Answer 200, or 503 if a background task cannot be restarted; for liveness.

    A process whose engine is being restarted answers 200: it must not be killed for that.
    """
    service: Service = request.app.state.service
    if service.background.alive:
        return JSONResponse({"status": "ok"})
    return JSONResponse({"status": "a background task cannot be restarted"}, status_code=503)
