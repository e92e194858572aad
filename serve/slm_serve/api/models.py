"""``GET /v1/models``: the engine's models, with the codec that speaks for them."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request

from slm_serve.backends.protocol import ModelCard
from slm_serve.service import Service

router = APIRouter()


@router.get("/v1/models")
async def models(request: Request) -> dict[str, Any]:
    """List the models."""
    service: Service = request.app.state.service
    return {"object": "list", "data": [_shown(service, card) for card in await service.backend.models()]}


@router.get("/v1/models/{model:path}")
async def model(request: Request, model: str) -> dict[str, Any]:
    """Describe one model."""
    service: Service = request.app.state.service
    return _shown(service, await service.card(model))


def _shown(service: Service, card: ModelCard) -> dict[str, Any]:
    codec = service.codec
    ours = {
        "codec": service.codec_name,
        "codec_fingerprint": codec.fingerprint,
        "n_units": codec.n_units,
        "rate_hz": codec.rate_hz,
        "voices": service.voices,
    }
    return {"created": 0, "owned_by": "slm", **card.fields, "id": card.id, "object": "model", "slm": ours}
