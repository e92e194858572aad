"""What the OpenAPI document says of a route that parses its body itself."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel


def described(path: str, request: type[BaseModel], response: type[BaseModel]) -> dict[str, Any]:
    """Return the arguments of a POST route that put its request and response into ``/openapi.json``.

    Args:
        path: Path of the route; references inside the request's schema go through it.
        request: Model of the JSON body.
        response: Model of the answer that is not streamed.
    """
    media = "application/json"
    here = f"#/paths/{_escaped(path)}/post/requestBody/content/{_escaped(media)}/schema/$defs/{{model}}"
    schema = request.model_json_schema(ref_template=here)
    body = {"required": True, "content": {media: {"schema": schema}}}
    return {"openapi_extra": {"requestBody": body}, "responses": {200: {"model": response}}}


def _escaped(part: str) -> str:
    """Escape one step of a JSON pointer (RFC 6901)."""
    return part.replace("~", "~0").replace("/", "~1")
