"""Write the files of a report."""

from __future__ import annotations

from pathlib import Path

from slm_plugin.errors import PipelineError
from slm_plugin.pipeline import records
from slm_plugin.report import page, table
from slm_plugin.report.content import Report

PAGE, CONTENT, TABLE = "report.html", "report.json", "report.md"


def write(report: Report, folder: Path) -> list[Path]:
    """Write ``report.html``, ``report.json`` and ``report.md`` and return their paths.

    Raises:
        PipelineError: They cannot be written.
    """
    try:
        records.write_text(folder / PAGE, page.render(report))
        records.write_json(folder / CONTENT, report.as_json())
        records.write_text(folder / TABLE, table.render(report))
    except OSError as error:
        raise PipelineError(f"the report cannot be written to {folder}: {error.strerror}.") from None
    return [folder / name for name in (PAGE, CONTENT, TABLE)]
