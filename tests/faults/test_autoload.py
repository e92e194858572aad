"""The autoload file never keeps LLaMA-Factory from being imported."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

AUTOLOAD = Path("slm_plugin/host/autoload/slm_plugin_autoload.py")


@pytest.fixture
def site(root: Path, tmp_path: Path) -> Path:
    """A folder with the autoload file and a package in LLaMA-Factory's place, and without ours."""
    (tmp_path / "llamafactory" / "hparams").mkdir(parents=True)
    (tmp_path / "llamafactory" / "__init__.py").touch()
    (tmp_path / "llamafactory" / "hparams" / "__init__.py").touch()
    (tmp_path / "llamafactory" / "hparams" / "parser.py").write_text("READ = 1")
    (tmp_path / "slm_plugin_autoload.py").write_text((root / AUTOLOAD).read_text())
    return tmp_path


def imported(site: Path, more: str = "") -> subprocess.CompletedProcess[str]:
    """Import a module that is patched, in an interpreter with that folder and the standard library alone."""
    code = f"import sys; sys.path.insert(0, {str(site)!r}); import slm_plugin_autoload as a; a.install()\n"
    code += f"import llamafactory.hparams.parser as p; print(p.READ, len(a.HostFinder.failures) > 0)\n{more}"
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    command = [sys.executable, "-I", "-S", "-c", code]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)


def test_if_the_package_is_gone_it_does_nothing(site: Path):
    done = imported(site)
    assert (done.returncode, done.stdout, done.stderr) == (0, "1 True\n", "")


def write_package(site: Path, activation: str) -> None:
    (site / "slm_plugin" / "host").mkdir(parents=True)
    (site / "slm_plugin" / "__init__.py").touch()
    (site / "slm_plugin" / "host" / "__init__.py").touch()
    (site / "slm_plugin" / "host" / "activation.py").write_text(activation)


@pytest.mark.parametrize(
    ("activation", "reason"),
    [
        ("import no_such_library", "ModuleNotFoundError: No module named 'no_such_library'"),
        ("1 +", "SyntaxError: invalid syntax"),
        (
            "def patch_for(name):\n    def patch(module): raise RuntimeError('a bug')\n    return patch",
            "RuntimeError: a bug",
        ),
    ],
    ids=["library", "damaged", "bug"],
)
def test_if_the_package_cannot_be_loaded_one_line_says_why(activation: str, reason: str, site: Path):
    write_package(site, activation)
    done = imported(site, "import importlib; importlib.reload(p)")
    assert done.returncode == 0, done.stderr
    assert done.stdout == "1 True\n"
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"slm_plugin is off: it cannot be loaded ({reason}")


def test_a_block_is_refused_if_a_part_is_not_in_force():
    code = (
        "import slm_plugin_autoload as a\n"
        "from slm_plugin.host import surface\n"
        "from slm_plugin.errors import HostError\n"
        "surface.require()\n"
        "a.HostFinder.failures += ('a bug',)\n"
        "try:\n    surface.require()\n"
        "except HostError as error:\n    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout == "slm_plugin is not in force in all of LLaMA-Factory: a bug.\n", done.stderr
