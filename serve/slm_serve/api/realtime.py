"""``/v1/realtime``: spoken conversation over a WebSocket."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import anyio
from fastapi import APIRouter, WebSocket
from starlette.websockets import WebSocketDisconnect, WebSocketState

from slm_plugin.errors import SlmError
from slm_serve.errors import error_body
from slm_serve.realtime.session import Session
from slm_serve.service import Service

router = APIRouter()

_REFUSED = 1008
_FAILED = 1011


@router.websocket("/v1/realtime")
async def realtime(socket: WebSocket, model: str = "") -> None:
    """Converse until the client leaves."""
    service: Service = socket.app.state.service
    offered = [name for name in socket.scope.get("subprotocols", ()) if name == "realtime"]
    await socket.accept(offered[0] if offered else None)

    async def write(event: dict[str, Any]) -> None:
        await socket.send_text(json.dumps(event, ensure_ascii=False, separators=(",", ":")))

    session = Session(service, model, write)
    try:
        await session.begin()
        while True:
            await session.take(await _text(socket))
    except (WebSocketDisconnect, OSError):
        return
    except SlmError as error:
        # only the greeting lets one through: there is no conversation without a model
        await session.send("error", error={**error_body(error)["error"], "event_id": None})
        await socket.close(_REFUSED)
    except Exception:
        with suppress(RuntimeError, OSError):
            await socket.close(_FAILED)
        raise
    finally:
        with anyio.CancelScope(shield=True):
            await session.end()


async def _text(socket: WebSocket) -> str:
    """Return the next message; bytes are taken for the text they may be, so that the refusal has a voice."""
    message = await socket.receive()
    if message["type"] == "websocket.disconnect" or socket.client_state is WebSocketState.DISCONNECTED:
        raise WebSocketDisconnect(message.get("code", 1005))
    text = message.get("text")
    return text if text is not None else message.get("bytes", b"").decode("utf-8", "replace")
