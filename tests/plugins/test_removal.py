"""A mitigation taken out, file and line, is missed by its own tests, pages and recipes alone."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from slm_plugin.plugins import BUILT_INS

MITIGATIONS = [name.rsplit(".", 1)[1] for name in BUILT_INS if name.startswith("slm_plugin.mitigations.")]
# the block, the registry, the host's command line and training, and the other mitigations
REST = ("test_config.py", "plugins/test_registry.py", "mitigations", "host/test_arguments.py", "host/test_stages.py")


@pytest.mark.slow
@pytest.mark.host
@pytest.mark.parametrize("name", MITIGATIONS)
def test_without_a_mitigation_everything_else_works(name: str, root: Path, tmp_path: Path):
    for folder in ("slm_plugin", "serve", "tests"):
        shutil.copytree(root / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(root / "pyproject.toml", tmp_path)
    (tmp_path / f"slm_plugin/mitigations/{name}.py").unlink()
    for of_its_own in (tmp_path / "tests").rglob(f"test_{name}*.py"):
        of_its_own.unlink()
    plugins = tmp_path / "slm_plugin/plugins.py"
    text = plugins.read_text(encoding="utf-8")
    plugins.write_text(text.replace(f'    "slm_plugin.mitigations.{name}",\n', ""), encoding="utf-8")
    command = [sys.executable, "-m", "pytest", "-q", "-m", "not slow", "-p", "no:cacheprovider", "-p", "no:cov"]
    paths = [str(tmp_path / "tests" / place) for place in REST]
    done = subprocess.run(
        [*command, *paths],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": f"{tmp_path}:{tmp_path / 'serve'}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:]
    # all of them, and of the copy
    assert int(done.stdout.split(" passed")[0].split()[-1]) > 100
    ask = [sys.executable, "-c", f"import slm_plugin.mitigations.{name}"]
    asked = subprocess.run(
        ask, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(tmp_path)}, check=False, capture_output=True
    )
    assert b"No module named" in asked.stderr
