"""``GET /``: a page to talk to the model, without anything from elsewhere."""

from __future__ import annotations

from pathlib import Path

from fastapi import APIRouter
from fastapi.responses import FileResponse
from starlette.exceptions import HTTPException

FOLDER = Path(__file__).parent.parent / "web"
TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self';"
        " media-src 'self' blob:; worker-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "permissions-policy": "microphone=(self), camera=(), geolocation=()",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "cache-control": "no-cache",
}
"""The page takes nothing from elsewhere, sends nothing elsewhere, and is shown in no other page."""

router = APIRouter()


@router.get("/", include_in_schema=False)
async def index() -> FileResponse:
    """Return the page."""
    return _file("index.html")


@router.get("/web/{name}", include_in_schema=False)
async def part(name: str) -> FileResponse:
    """Return one of its files.

    Raises:
        HTTPException: There is no such file.
    """
    return _file(name)


def _file(name: str) -> FileResponse:
    # looked up, never joined: a name from a request is no path
    found = {path.name: path for path in FOLDER.iterdir() if path.suffix in TYPES}.get(name)
    if found is None:
        raise HTTPException(404)
    return FileResponse(found, media_type=TYPES[found.suffix], headers=HEADERS)
