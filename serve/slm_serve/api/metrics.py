"""``GET /metrics``: what the server measures, for Prometheus."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST

router = APIRouter()


@router.get("/metrics", include_in_schema=False)
async def metrics(request: Request) -> Response:
    """Return the measurements as text; behind a key, where keys are asked for."""
    return Response(request.app.state.service.metrics.page(), media_type=CONTENT_TYPE_LATEST)
