from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from slm_plugin.plugins import Registry
from slm_plugin.prepare.options import load
from slm_plugin.prepare.progress import Progress
from slm_plugin.prepare.run import prepare
from slm_plugin.prepare.statistics import Statistics


@pytest.fixture
def prepared(registry: Registry, tmp_path: Path) -> Callable[..., Statistics]:
    """``prepared("corpus.table.path=...", ...)`` runs ``slm prepare`` into ``tmp_path/out`` with the tiny codec."""

    def run(*arguments: Any, name: str = "set", output: str = "out") -> Statistics:
        given = [f"name={name}", f"output={tmp_path / output}", "codec=tiny", *map(str, arguments)]
        _, found = prepare(load(given), registry, Progress(Console(file=io.StringIO())))
        assert found is not None
        return found

    return run
