"""Every request gets an id, one log line and its place in the metrics: the outermost layer of the server."""

from __future__ import annotations

import logging
import time

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from slm_serve.context import RequestContext, enter, request_id
from slm_serve.ops.metrics import Metrics
from slm_serve.ops.tracing import Tracing

_LOG = logging.getLogger("slm_serve.access")
_NOT_ANSWERED = 499


class Access:
    """Tells of each request when it has ended: never what was said in it, nor by which key.

    Args:
        app: What answers.
        metrics: Counted in.
        tracing: Opens a span for each request.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics, tracing: Tracing) -> None:
        self._app = app
        self._metrics = metrics
        self._tracing = tracing

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on and tell how it ended."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        given = headers.get("x-request-id", "")
        context = RequestContext(id=request_id(given), is_session=scope["type"] == "websocket")
        enter(context)
        status, ended = _NOT_ANSWERED, False

        async def heard() -> Message:
            message = await receive()
            if message["type"] == "http.disconnect" and not ended:
                context.cancel = context.cancel or "disconnect"
            return message

        async def told(message: Message) -> None:
            nonlocal status, ended
            kind = message["type"]
            if kind in ("http.response.start", "websocket.http.response.start"):
                status = message["status"]
                MutableHeaders(scope=message)["x-request-id"] = context.id
            elif kind == "websocket.accept":
                status = 101
            elif kind == "http.response.body" and not message.get("more_body", False):
                ended = True
            await send(message)

        with self._tracing.request(headers, scope["type"]) as span:
            try:
                await self._app(scope, heard, told)
            except Exception:
                # answered by the layer around this one
                status, context.error = 500, context.error or "server_error"
                raise
            finally:
                self._tell(scope, context, status)
                span.end_with(route_of(scope), status, context)

    def _tell(self, scope: Scope, context: RequestContext, status: int) -> None:
        seconds = time.monotonic() - context.started
        route = route_of(scope)
        self._metrics.requests.labels(route, str(status)).inc()
        if context.error:
            self._metrics.errors.labels(context.error).inc()
        if context.cancel:
            self._metrics.cancels.labels(context.cancel).inc()
        told = {"route": route, "method": scope.get("method", "WEBSOCKET"), "status": status}
        details = {"seconds": round(seconds, 4), "error": context.error, "cancel": context.cancel}
        replica = {"replica": context.replica}
        _LOG.info("request", extra={"fields": {**told, **details, **replica}})


def route_of(scope: Scope) -> str:
    """Return the pattern of the route that answered, such as ``/v1/models/{model:path}``; never a path as it came."""
    return str(getattr(scope.get("route"), "path", "other"))
