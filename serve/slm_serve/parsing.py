"""Parse request bodies: bounded in size and in cost, with every mistake reported in OpenAI's form."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from fastapi import Request
from pydantic import BaseModel, ValidationError
from pydantic_core import from_json

from slm_plugin.errors import suggest
from slm_serve.errors import RequestError
from slm_serve.ops.limits import DEFAULT

MAX_JSON_VALUES = DEFAULT.json_values
"""Most values in the JSON of one request or WebSocket message."""

_MOST_KEYS = 256
"""Most keys of one object: each unknown one would cost an error message of its own."""

_LONGEST_QUOTE = 100
"""Characters of a client's own words that an error message repeats."""

Model = TypeVar("Model", bound=BaseModel)


async def read_body(request: Request) -> bytes:
    """Return the body of a request; its size is bounded by :class:`slm_serve.ops.deadlines.Deadlines`.

    Raises:
        RequestError: The body is compressed (415).
    """
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    if encoding not in ("", "identity"):
        text = f"Content-Encoding {quoted(encoding)} is not supported; send the body uncompressed."
        raise RequestError(text, code="unsupported_content_encoding", status=415)
    return await request.body()


def quoted(value: object) -> str:
    """Return what a client sent as an error message may repeat it: at most 100 characters of it."""
    text = value if isinstance(value, str) else f"a value of type {type(value).__name__}"
    return repr(text if len(text) <= _LONGEST_QUOTE else text[:_LONGEST_QUOTE] + "...")


def read_json(body: bytes | str, what: str) -> dict[str, Any]:
    """Parse a JSON object whose number of values, and of keys in one object, is bounded.

    Every value becomes a Python object of 30 to 100 bytes, and every invalid one an error of about 1 KB, so the
    commas and brackets are counted before anything is parsed; those inside strings count too.

    Args:
        body: The JSON.
        what: How an error message names it, such as ``the body``.

    Raises:
        RequestError: It is not JSON, not an object, or has too many values.
    """
    marks: tuple[Any, ...] = (",", "[", "{") if isinstance(body, str) else (b",", b"[", b"{")
    if sum(body.count(mark) for mark in marks) > MAX_JSON_VALUES:
        raise RequestError(f"{what} has more than {MAX_JSON_VALUES:,} values.", code="invalid_json")
    try:
        raw = from_json(body, allow_inf_nan=False)
    except ValueError as error:
        raise RequestError(f"{what} is not JSON: {error}.", code="invalid_json") from None
    if not isinstance(raw, dict):
        raise RequestError(f"{what} must be a JSON object.", code="invalid_json")
    _check_keys(raw, what)
    return raw


def _check_keys(raw: Any, what: str) -> None:
    pending = [raw]
    while pending:
        value = pending.pop()
        if isinstance(value, dict):
            if len(value) > _MOST_KEYS:
                raise RequestError(f"{what} has an object of more than {_MOST_KEYS} keys.", code="invalid_json")
            pending.extend(value.values())
        elif isinstance(value, list):
            pending.extend(value)


def parse_json(model: type[Model], body: bytes, unsupported: Mapping[str, Any]) -> Model:
    """Parse a JSON body.

    Args:
        model: What the body must be.
        body: The bytes as they came.
        unsupported: Names that are known but cannot be done, for the message.

    Raises:
        RequestError: Reports the first problem, and where it is.
    """
    return parse_object(model, read_json(body, "the body"), unsupported)


def parse_object(model: type[Model], raw: dict[str, Any], unsupported: Mapping[str, Any]) -> Model:
    """Parse what JSON or a form gave; see :func:`parse_json`.

    A known parameter that cannot be done is passed over where it asks for nothing.
    """
    raw = {key: value for key, value in raw.items() if key not in unsupported or value != unsupported[key]}
    try:
        return model.model_validate(raw)
    except ValidationError as error:
        raise _refusal(model, raw, error, unsupported) from None


def _refusal(model: type[BaseModel], raw: Any, error: ValidationError, unsupported: Mapping[str, Any]) -> RequestError:
    detail = error.errors(include_url=False, include_input=False)[0]
    path = _path(detail["loc"], raw)
    param = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).lstrip(".") or None
    kind, name = detail["type"], path[-1] if path else ""
    if kind == "extra_forbidden":
        if len(path) == 1 and name in unsupported:
            return RequestError(f"{quoted(name)} is not supported by this server.", param, "unsupported_parameter")
        hint = f" {suggest(name, model.model_fields, 'Parameters')}" if len(path) == 1 else ""
        return RequestError(f"unknown parameter {param!r}.{hint}", param, "unknown_parameter")
    if kind == "missing":
        return RequestError(f"{param!r} is required.", param, "missing_required_parameter")
    message = detail["msg"].removeprefix("Value error, ").rstrip(".") + "."
    where = f"{param!r}: " if param else ""
    return RequestError(where + message[0].lower() + message[1:], param, "invalid_value")


def _path(loc: tuple[int | str, ...], raw: Any) -> list[int | str]:
    """Keep of a pydantic location what a client sees: tags of unions are not in its request."""
    path: list[int | str] = []
    here = raw
    for position, part in enumerate(loc):
        if isinstance(here, dict) and part in (here.get("role"), here.get("type")) and _is_item(loc, position):
            continue
        is_key = isinstance(here, dict) and part in here
        is_index = isinstance(here, list) and isinstance(part, int) and part < len(here)
        if is_key or is_index:
            here = here[part]
        elif isinstance(part, int) or position < len(loc) - 1:
            continue
        path.append(part)
    return path


def _is_item(loc: tuple[int | str, ...], position: int) -> bool:
    """Tell whether the part in front of a position is the index of a list."""
    return position > 0 and isinstance(loc[position - 1], int)
