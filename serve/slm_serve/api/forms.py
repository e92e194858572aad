"""Multipart forms, bounded in size and kept in memory: an upload never touches the disk."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from typing import Any

from fastapi import Request
from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from slm_serve.errors import RequestError
from slm_serve.parsing import MAX_BODY_BYTES, read_body

_MOST_FIELDS = 64
_TRUTH = {"true": True, "false": False, "1": True, "0": False}
_NUMBERS = ("temperature", "seed", "max_tokens")


@dataclass(frozen=True)
class Form:
    """A parsed form.

    Attributes:
        fields: By name, in the types that a JSON body would have; ``name[]`` is a list.
        file: Bytes of the upload called ``file``; None without one.
    """

    fields: dict[str, Any] = field(default_factory=dict)
    file: bytes | None = None


async def read_form(request: Request) -> Form:
    """Return the form that a request carries.

    Raises:
        RequestError: It is no multipart form, or too large (413).
    """
    if not request.headers.get("content-type", "").startswith("multipart/form-data"):
        raise RequestError("the body must be multipart/form-data.", code="invalid_form")
    body = await read_body(request)

    async def whole() -> AsyncGenerator[bytes, None]:
        yield body

    try:
        parser = MultiPartParser(
            request.headers, whole(), max_files=1, max_fields=_MOST_FIELDS, max_part_size=MAX_BODY_BYTES
        )
        # larger than any body, so that nothing is rolled over to a file
        parser.spool_max_size = 2 * MAX_BODY_BYTES
        parsed = await parser.parse()
    except (MultiPartException, KeyError, ValueError) as error:
        raise RequestError(f"the form cannot be read ({error}).", code="invalid_form") from None
    try:
        return await _read(parsed)
    finally:
        await parsed.close()


async def _read(parsed: FormData) -> Form:
    fields: dict[str, Any] = {}
    file: bytes | None = None
    for name, value in parsed.multi_items():
        if isinstance(value, UploadFile):
            if name != "file":
                raise RequestError(f"unknown parameter {name!r}: the recording is called 'file'.", name)
            file = await value.read()
        elif name.endswith("[]"):
            fields.setdefault(name.removesuffix("[]"), []).append(value)
        elif name in fields:
            raise RequestError(f"{name!r} is given twice.", name, "invalid_value")
        else:
            fields[name] = _typed(name, value)
    return Form(fields, file)


def _typed(name: str, value: str) -> Any:
    if name == "stream":
        return _TRUTH.get(value.lower(), value)
    if name in _NUMBERS:
        for kind in (int, float):
            try:
                return kind(value)
            except ValueError:
                continue
    return value
