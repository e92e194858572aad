"""Google docstrings with reStructuredText roles as Markdown."""

from __future__ import annotations

import inspect
import re
import textwrap


def markdown(docstring: str) -> str:
    """Turn a Google docstring with reStructuredText roles into Markdown."""
    text = re.sub(r":\w+:`~?([^`]+)`", r"`\1`", inspect.cleandoc(docstring)).replace("``", "`")
    text = re.sub(r"^(\S[^\n]*)::\n\n((?:    .*\n?|\n)+)", _code_block, text, flags=re.MULTILINE)
    text = re.sub(r"^(Returns|Args|Raises|Attributes|Source):\n((?: {4}.*\n?)+)", _section, text, flags=re.MULTILINE)
    return text.strip()


def _code_block(match: re.Match[str]) -> str:
    return f"{match[1]}:\n\n```\n{textwrap.dedent(match[2]).strip()}\n```\n\n"


def _section(match: re.Match[str]) -> str:
    return f"*{match[1]}:* {' '.join(textwrap.dedent(match[2]).split())}\n"
