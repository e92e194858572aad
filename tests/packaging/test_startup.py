"""What each verb of ``slm`` imports: a verb loads what it needs, and a missing package stops no other verb."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from slm_plugin.lazy_commands import install_advice

HEAVY = (
    "torch", "transformers", "peft", "datasets", "sklearn", "scipy", "pandas", "pyarrow", "matplotlib", "jiwer",
    "vllm", "llamafactory", "fastapi", "uvicorn", "prometheus_client", "mergekit", "lm_eval", "joblib", "httpx",
    "omegaconf",
)  # fmt: skip


def imported(arguments: list[str], before: str = "") -> set[str]:
    """Return the names of :data:`HEAVY`, and numpy, that a verb imports; it must succeed."""
    code = (
        f"import json, sys\n{before}\n"
        "from slm_plugin.cli import main\n"
        f"sys.argv = {['slm', *arguments]!r}\n"
        "status = 0\n"
        "try:\n"
        "    main()\n"
        "except SystemExit as end:\n"
        "    status = end.code\n"
        f"print(json.dumps([status, [name for name in {(*HEAVY, 'numpy')!r} if name in sys.modules]]))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    status, found = json.loads(done.stdout.splitlines()[-1])
    assert not status, done.stderr
    return set(found)


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("clip") / "a.wav"
    soundfile.write(path, 0.3 * np.sin(np.arange(16_000) / 20), 16_000)
    return path


@pytest.mark.parametrize("arguments", [["--version"], ["--help"]], ids=" ".join)
def test_version_and_help_import_no_library_of_arrays_or_models(arguments: list[str]):
    assert imported(arguments) == set()


def test_units_of_a_wav_import_no_library_of_models(clip: Path):
    assert imported(["units", str(clip)]) == {"numpy"}


BLOCK = """
import importlib.abc
class Blocker(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {names!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Blocker())
"""


def test_without_the_packages_of_serve_every_other_verb_works(clip: Path):
    missing = BLOCK.format(names=("prometheus_client", "fastapi", "uvicorn", "vllm", "starlette", "websockets"))
    for arguments in (["--version"], ["--help"], ["units", str(clip)]):
        imported(arguments, missing)


def run_main(arguments: list[str], before: str) -> subprocess.CompletedProcess[str]:
    code = f"import sys\n{before}\nfrom slm_plugin.cli import main\nsys.argv = {['slm', *arguments]!r}\nmain()\n"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


def test_serve_without_its_packages_says_in_one_line_what_to_install():
    done = run_main(["serve", "--model", "x", "--codec", "tiny"], BLOCK.format(names=("prometheus_client",)))
    assert done.returncode == 2
    assert done.stderr == (
        "slm: the Python package 'prometheus_client' is not installed; run: pip install 'slm-plugin[serve]'\n"
    )


def test_a_verb_of_another_package_that_cannot_be_imported_stops_no_other_verb(tmp_path: Path):
    metadata = tmp_path / "broken-1.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 1\n", encoding="utf-8")
    (metadata / "entry_points.txt").write_text("[slm_plugin.commands]\nother = no_such_package:verb\n", "utf-8")
    before = f"sys.path.insert(0, {str(tmp_path)!r})"
    assert run_main(["--version"], before).returncode == 0
    listed = run_main(["--help"], before)
    assert listed.returncode == 0
    assert "Not available: no_such_package:verb cannot be imported" in " ".join(listed.stdout.replace("│", "").split())
    used = run_main(["other", "--option", "x"], before)
    assert used.returncode == 2
    assert "PluginError: slm other is not available: no_such_package:verb cannot be imported" in used.stderr
    assert "Traceback" not in used.stderr


@pytest.mark.parametrize(
    ("module", "advice"),
    [
        ("prometheus_client.core", "pip install 'slm-plugin[serve]'"),
        ("mergekit", "pip install 'slm-plugin[merge]'"),
        ("soundfile", "pip install soundfile"),
        ("no_such_package", None),
    ],
)
def test_a_missing_package_is_advised_by_the_extra_that_holds_it(module: str, advice: str | None):
    assert install_advice(module) == advice
