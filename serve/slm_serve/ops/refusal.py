"""Refuse a request before any route sees it, over HTTP and over WebSocket."""

from __future__ import annotations

from starlette.types import Receive, Scope, Send

from slm_serve.errors import RequestError, error_response

POLICY_VIOLATION = 1008
"""Close code of a WebSocket whose server cannot answer with a status."""


async def refuse(error: RequestError, scope: Scope, receive: Receive, send: Send) -> None:
    """Answer with an error; a WebSocket is answered in HTTP, before it is accepted."""
    answer = error_response(error)
    if scope["type"] == "http":
        await answer(scope, receive, send)
        return
    # the handshake is given to the application as a first message
    await receive()
    if "websocket.http.response" not in (scope.get("extensions") or {}):
        await send({"type": "websocket.close", "code": POLICY_VIOLATION, "reason": str(error)[:120]})
        return
    await send({"type": "websocket.http.response.start", "status": answer.status_code, "headers": answer.raw_headers})
    await send({"type": "websocket.http.response.body", "body": answer.body})
