"""Refusals and failures in OpenAI's error form: ``{"error": {message, type, param, code}}``.

What the server adds to the tree of :mod:`slm_plugin.errors`::

    SlmError
    ├── RequestError    a request cannot be answered as it stands; told to its client with the parameter's name
    └── RefusedError    the engine does not take an adapter; told in the log, the version before goes on
"""

from __future__ import annotations

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from slm_plugin.errors import EngineError, SlmError
from slm_serve.context import current

ENGINE_RETRY_S = 5
"""Seconds after which to ask again when the engine is away: it is being started anew."""


_LONGEST_MESSAGE = 1000
_LONGEST_PARAM = 200


def _shortened(text: str, most: int) -> str:
    """Cut what a client sent and an error repeats: an error is never as large as the request."""
    return text if len(text) <= most else f"{text[:most]}..."


class RequestError(SlmError):
    """The client's request cannot be answered as it stands.

    Attributes:
        status: HTTP status, 400 unless the API has a better one.
        param: Path of the offending parameter, such as ``messages[0].content``.
        code: Machine-readable name of the problem.
        retry_after_s: Seconds after which the same request may be answered; None where that would not help.
    """

    def __init__(
        self,
        message: str,
        param: str | None = None,
        code: str | None = None,
        status: int = 400,
        retry_after_s: int | None = None,
    ) -> None:
        super().__init__(_shortened(message, _LONGEST_MESSAGE))
        self.retry_after_s = retry_after_s
        self.param = None if param is None else _shortened(param, _LONGEST_PARAM)
        self.code = code
        self.status = status


class RefusedError(SlmError):
    """The engine does not take an adapter."""


def error_body(error: Exception) -> dict[str, dict[str, str | None]]:
    """Return the JSON body that describes an error."""
    param, code, kind = None, None, "invalid_request_error"
    if isinstance(error, RequestError):
        param, code = error.param, error.code
        if error.status == 429:
            kind = "rate_limit_error"
        elif error.status >= 500:
            kind = "server_error"
    elif isinstance(error, EngineError):
        kind, code = "server_error", "engine_unavailable"
    elif not isinstance(error, SlmError):
        kind = "server_error"
    current().error = code or kind
    message = str(error) if isinstance(error, SlmError) else "the server failed to answer; its log has the details."
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def error_status(error: Exception) -> int:
    """Return the HTTP status that belongs to an error: the user's mistakes are 400, ours 500."""
    if isinstance(error, RequestError | EngineError):
        return error.status
    return 400 if isinstance(error, SlmError) else 500


def error_response(error: Exception) -> JSONResponse:
    """Return the HTTP response that describes an error."""
    wait_s = ENGINE_RETRY_S if isinstance(error, EngineError) else getattr(error, "retry_after_s", None)
    headers = None if wait_s is None else {"retry-after": str(wait_s)}
    return JSONResponse(error_body(error), status_code=error_status(error), headers=headers)


async def _known(_: Request, error: Exception) -> JSONResponse:
    return error_response(error)


async def _http(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    text = {
        404: f"there is nothing at {request.url.path}.",
        405: f"{request.method} is not possible at {request.url.path}.",
    }.get(error.status_code, str(error.detail))
    answer = error_response(RequestError(text, code=None, status=error.status_code))
    answer.headers.update(error.headers or {})
    return answer


async def _nobody(_: Request, error: Exception) -> Response:
    # the client has left; the status is for the log alone
    return Response(status_code=499)


async def _unforeseen(_: Request, error: Exception) -> JSONResponse:
    # the server raises it again behind this answer, so that it is logged with its traceback
    return error_response(error)


def install(app: FastAPI) -> None:
    """Make an application answer every error in OpenAI's form."""
    app.add_exception_handler(SlmError, _known)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(ClientDisconnect, _nobody)
    app.add_exception_handler(Exception, _unforeseen)
