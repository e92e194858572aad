"""What the OpenAPI document says of a route that parses its body itself."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel

Media = Literal["application/json", "multipart/form-data"]
_FILE = {"type": "string", "format": "binary", "description": "The recording."}


def described(
    path: str, request: type[BaseModel], response: type[BaseModel] | None = None, media: Media = "application/json"
) -> dict[str, Any]:
    """Return the arguments of a POST route that put its request and response into ``/openapi.json``.

    Args:
        path: Path of the route; references inside the request's schema go through it.
        request: Model of the body.
        response: Model of the answer that is not streamed; None for one that is not JSON.
        media: Form of the body; a ``multipart/form-data`` one has a ``file`` beside the model's fields.
    """
    here = f"#/paths/{_escaped(path)}/post/requestBody/content/{_escaped(media)}/schema/$defs/{{model}}"
    schema = request.model_json_schema(ref_template=here)
    if media == "multipart/form-data":
        schema["properties"] = {"file": _FILE, **schema["properties"]}
        schema["required"] = ["file", *schema.get("required", ())]
    body = {"required": True, "content": {media: {"schema": schema}}}
    described_answer = {} if response is None else {"responses": {200: {"model": response}}}
    return {"openapi_extra": {"requestBody": body}, **described_answer}


def _escaped(part: str) -> str:
    """Escape one step of a JSON pointer (RFC 6901)."""
    return part.replace("~", "~0").replace("/", "~1")
