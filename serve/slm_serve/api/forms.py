"""Multipart forms, bounded in size and kept in memory: an upload never touches the disk."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from typing import Any

from fastapi import Request
from python_multipart.multipart import parse_options_header
from starlette.datastructures import FormData, Headers, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from slm_serve.errors import RequestError
from slm_serve.parsing import read_body

_MOST_FIELDS = 64
_BOUNDARY = re.compile(r"[0-9A-Za-z'()+_,./:=? -]{1,200}")
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
    headers = _utf8_headers(request.headers.get("content-type", ""))
    body = await read_body(request)

    async def whole() -> AsyncGenerator[bytes, None]:
        yield body

    try:
        parser = _Utf8Parser(headers, whole(), max_files=1, max_fields=_MOST_FIELDS, max_part_size=len(body) + 1)
        # larger than this body, so that nothing is rolled over to a file
        parser.spool_max_size = len(body) + 1
        parsed = await parser.parse()
    except (MultiPartException, KeyError, ValueError) as error:
        raise RequestError(f"the form cannot be read ({error}).", code="invalid_form") from None
    try:
        return await _read(parsed)
    finally:
        await parsed.close()


def _utf8_headers(content_type: str) -> Headers:
    """Return the header that the parser reads: the boundary, without a codec of the client's choice.

    Python's codecs include some of quadratic time (``punycode``), so no name from a request reaches them.
    """
    kind, options = parse_options_header(content_type)
    if kind != b"multipart/form-data":
        raise RequestError("the body must be multipart/form-data.", code="invalid_form")
    charset = options.get(b"charset", b"utf-8").lower()
    if charset not in (b"utf-8", b"utf8"):
        raise RequestError("the charset of a form must be utf-8.", code="invalid_form")
    boundary = options.get(b"boundary", b"").decode("latin-1")
    if not _BOUNDARY.fullmatch(boundary):
        raise RequestError(
            "the form cannot be read (it has no boundary, or one that RFC 2046 does not allow).", code="invalid_form"
        )
    return Headers({"content-type": f'multipart/form-data; boundary="{boundary}"'})


class _Utf8Parser(MultiPartParser):
    """Starlette's parser, which reads text that is not UTF-8 as Latin-1, with a refusal in that place."""

    def on_headers_finished(self) -> None:
        _require_utf8(self._current_part.content_disposition or b"")
        super().on_headers_finished()

    def on_part_end(self) -> None:
        if self._current_part.file is None:
            _require_utf8(self._current_part.data)
        super().on_part_end()


def _require_utf8(data: bytes | bytearray) -> None:
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        raise MultiPartException("its text is not UTF-8") from None


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
