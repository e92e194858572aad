"""``GET /health``: whether a request would be answered now."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse

router = APIRouter()


@router.get("/health")
async def health(request: Request) -> JSONResponse:
    """Answer 200 where the engine answers (the codec is loaded before the server listens), else 503."""
    if await request.app.state.service.backend.healthy():
        return JSONResponse({"status": "ok"})
    return JSONResponse({"status": "the engine does not answer"}, status_code=503)
