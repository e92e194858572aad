"""The reference page of the conformance table."""

from __future__ import annotations

from slm_plugin.reference_code import NOTE
from slm_serve.conformance.table import ENDPOINTS, Row

_HEAD = f"""# What of OpenAI's API `slm serve` does

{NOTE}The tests send the values behind this table, and hold its parameters against those that OpenAI's SDK knows.
What is not supported is refused with status 400 and the parameter's name, never passed over. `partly`: some values are
refused. Parameters with an asterisk are ours.
"""


def page() -> str:
    """Return the page."""
    parts = [_HEAD]
    for heading, rows in ENDPOINTS.items():
        what = "event" if heading.endswith("events") else "parameter"
        lines = [f"| {what} | supported | where it deviates |", "|---|---|---|", *map(_line, rows)]
        parts.append(f"## `{heading}`\n\n" + "\n".join(lines) + "\n")
    return "\n".join(parts)


def _line(row: Row) -> str:
    support = "yes" if row.name == "file" else row.support
    star = "\\*" if row.ours else ""
    return f"| `{row.name}`{star} | {support} | {row.note} |"
