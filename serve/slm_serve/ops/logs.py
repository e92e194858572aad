"""Structured logs: one JSON object a line, with the request's id, and nothing of what was said."""

from __future__ import annotations

import json
import logging
import sys
import traceback
from datetime import UTC, datetime
from typing import Any

from slm_serve import context


class Discreet(logging.Formatter):
    """Writes records as JSON, or as text for people.

    Of an exception the type and the places are written, not its words: they may quote a request.

    Args:
        form: ``json`` or ``text``.
    """

    def __init__(self, form: str) -> None:
        super().__init__()
        self._form = form

    def format(self, record: logging.LogRecord) -> str:
        """Return one line."""
        fields: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            # asyncio repeats the task, and with it the words of its exception, behind the first line
            "event": record.getMessage().partition("\n")[0] if record.name == "asyncio" else record.getMessage(),
            "request_id": context.current_id(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info and record.exc_info[1] is not None:
            error = record.exc_info[1]
            fields["exception"] = type(error).__name__
            fields["places"] = [f"{f.filename}:{f.lineno} {f.name}" for f in traceback.extract_tb(error.__traceback__)]
        known = {name: value for name, value in fields.items() if value is not None}
        if self._form == "json":
            return json.dumps(known, ensure_ascii=False, default=str)
        head = f"{known.pop('time')} {known.pop('level')} {known.pop('logger')}: {known.pop('event')}"
        return " ".join([head.replace("\n", " "), *(f"{name}={value}" for name, value in known.items())])


def configure(form: str = "text", level: str = "info", uvicorn: bool = True) -> None:
    """Send the server's log, and uvicorn's, to standard error.

    Args:
        form: How lines look.
        level: Least level that is written.
        uvicorn: Whether uvicorn is ours to configure, too.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(Discreet(form))
    levels: dict[str, str | int] = {"slm_serve": level.upper()}
    if uvicorn:
        levels["uvicorn"] = logging.WARNING
        logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
    for name, least in levels.items():
        logger = logging.getLogger(name)
        logger.handlers = [handler]
        logger.setLevel(least)
        logger.propagate = False
