"""One finished run for all tests of the report that only read it."""

from __future__ import annotations

from pathlib import Path

import pytest

from report.world import write_run
from slm_plugin.plugins import Registry
from slm_plugin.report.collect import ReportOptions, collect
from slm_plugin.report.content import Report


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory, registry: Registry) -> Path:
    """A finished run; its pipeline file is ``pipeline.yaml`` beside it."""
    folder = tmp_path_factory.mktemp("report") / "run"
    write_run(folder, registry)
    return folder


@pytest.fixture(scope="session")
def report(run: Path, registry: Registry) -> Report:
    """Its report, with playable answers."""
    options = ReportOptions(pipeline=run.parent / "pipeline.yaml", codec="tiny", learned={"spoken": "sqa"})
    return collect([run], options, registry)
