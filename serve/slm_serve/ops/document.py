"""``/openapi.json`` tells how every route refuses, beside what it takes."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel

REFUSALS = {
    "400": "the request cannot be answered as it stands",
    "401": "the API key is missing or wrong",
    "403": "a page of another site asks",
    "404": "there is no such model",
    "405": "another method is needed",
    "408": "the request did not arrive in time",
    "413": "the request is too large",
    "429": "too many requests; Retry-After says when to come back",
    "503": "the engine is away; Retry-After says when to come back",
    "504": "the answer took too long",
}


class ErrorDetail(BaseModel):
    """OpenAI's error."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorBody(BaseModel):
    """What every refusal looks like."""

    error: ErrorDetail


def describe(app: FastAPI) -> None:
    """Put the refusals into an application's document."""

    def document() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _document(app)
        return app.openapi_schema

    app.openapi = document  # type: ignore[method-assign]  # FastAPI's own way


def _document(app: FastAPI) -> dict[str, Any]:
    written = get_openapi(title=app.title, version="1", routes=app.routes)
    schemas = written.setdefault("components", {}).setdefault("schemas", {})
    schema = ErrorBody.model_json_schema(ref_template="#/components/schemas/{model}")
    schemas.update(schema.pop("$defs"))
    schemas["ErrorBody"] = schema
    content = {"application/json": {"schema": {"$ref": "#/components/schemas/ErrorBody"}}}
    refused = {status: {"description": text, "content": content} for status, text in REFUSALS.items()}
    for operations in written["paths"].values():
        for operation in operations.values():
            # FastAPI's own form of a refusal is never sent
            operation["responses"].pop("422", None)
            operation["responses"] = {**refused, **operation["responses"]}
    for unused in ("HTTPValidationError", "ValidationError"):
        schemas.pop(unused, None)
    return written
