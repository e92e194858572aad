"""Write the conformance page: ``python -m slm_serve.conformance.page [--check]``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from slm_serve.conformance.table import ENDPOINTS, Row

PATH = Path("docs/reference/serving-api.md")
_HEAD = """# What of OpenAI's API `slm serve` does

<!-- Written by `python -m slm_serve.conformance.page` from slm_serve/conformance/table.py; edit that. -->

The tests send the values behind this table through OpenAI's own client, and hold its parameters against those that the
SDK knows. What is not supported is refused with status 400 and the parameter's name, never passed over. `partly`: some
values are refused. Parameters with an asterisk are ours.
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


def main(arguments: list[str] | None = None) -> int:
    """Write the page, or with ``--check`` tell whether it is what the table says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true")
    if not parser.parse_args(arguments).check:
        PATH.write_text(page(), encoding="utf-8")
        return 0
    if PATH.is_file() and PATH.read_text(encoding="utf-8") == page():
        return 0
    sys.stderr.write(f"{PATH} is not what the code says: run make docs.\n")
    return 1


if __name__ == "__main__":
    sys.exit(main())
