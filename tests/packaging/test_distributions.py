"""What is in the wheel and the sdist, and that each installs, works and goes away without a trace."""

from __future__ import annotations

import email
import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

AUTOLOAD = {f"slm_plugin_autoload.{ending}" for ending in ("py", "pth", "start")}
SAYS_ACTIVE = "import sys; print('HostFinder' in [getattr(f, '__name__', '') for f in sys.meta_path])"
SAYS_WHETHER_THE_HOST_KNOWS_THE_KEY = (
    "from llamafactory.hparams import parser; print(any(hasattr(cls, 'slm') for cls in parser._TRAIN_ARGS))"
)


def files_of(wheel: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def run(python: Path, code: str, *options: str, **environment: str) -> str:
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [str(python), *options, "-c", code]
    done = subprocess.run(command, env={**kept, **environment}, capture_output=True, text=True, check=True, cwd="/")
    return done.stdout.strip()


def installed_files(python: Path) -> set[str]:
    (folder,) = (python.parent.parent / "lib").glob("python*/site-packages")
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if "__pycache__" not in path.parts}


def install(uv: str, python: Path, what: Path) -> None:
    subprocess.run([uv, "pip", "install", "--quiet", "--no-deps", "--python", str(python), str(what)], check=True)


def test_the_wheel_holds_two_packages_and_the_autoload_files_at_its_root(wheel: Path):
    tops = {name.split("/")[0] for name in files_of(wheel)}
    assert {name for name in tops if not name.endswith(".dist-info")} == {"slm_plugin", "slm_serve", *AUTOLOAD}


def test_the_wheel_holds_every_file_of_the_packages_and_no_test_or_example(wheel: Path, tree: Path):
    packed = {name for name in files_of(wheel) if name.split("/")[0] in ("slm_plugin", "slm_serve")}
    on_disk = {
        str(path.relative_to(base))
        for base, package in ((tree, "slm_plugin"), (tree / "serve", "slm_serve"))
        for path in (base / package).rglob("*")
        if path.is_file() and path.name not in AUTOLOAD
    }
    assert packed == on_disk
    assert not [name for name in files_of(wheel) if "test" in name or "examples" in name]


def test_the_autoload_files_at_the_root_are_those_of_the_tree(wheel: Path, tree: Path):
    files = files_of(wheel)
    for name in AUTOLOAD:
        assert files[name] == (tree / "slm_plugin/host/autoload" / name).read_bytes()


def test_the_wheel_says_its_licence_and_carries_it(wheel: Path, tree: Path):
    files = files_of(wheel)
    (metadata,) = (content for name, content in files.items() if name.endswith(".dist-info/METADATA"))
    headers = email.message_from_bytes(metadata)
    assert headers["License-Expression"] == "Apache-2.0"
    assert headers["Requires-Python"] == ">=3.11"
    (licence,) = (content for name, content in files.items() if name.endswith("/licenses/LICENSE"))
    assert licence == (tree / "LICENSE").read_bytes()


def test_the_sdist_builds_the_same_wheel(sdist: Path, wheel: Path, tmp_path: Path):
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path, filter="data")
    (source,) = (path for path in tmp_path.iterdir() if path.is_dir())
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path), str(source)]
    subprocess.run(command, check=True, capture_output=True)
    (again,) = tmp_path.glob("*.whl")
    assert files_of(again) == files_of(wheel)


def test_the_sdist_leaves_environments_and_results_out(sdist: Path):
    with tarfile.open(sdist) as archive:
        tops = {name.split("/")[1] for name in archive.getnames() if "/" in name}
    assert {"slm_plugin", "serve", "pyproject.toml", "README.md", "LICENSE"} <= tops
    assert not tops & {".venv", ".uv", ".git", "runs", "dist", "build"}


@pytest.mark.host
def test_an_installed_wheel_makes_the_host_know_the_key_and_uninstalling_leaves_nothing(
    wheel: Path, uv: str, make_environment
):
    python = make_environment()
    before = installed_files(python)
    assert run(python, SAYS_ACTIVE) == "False"
    install(uv, python, wheel)
    assert run(python, SAYS_ACTIVE) == "True"
    assert run(python, SAYS_ACTIVE, "-I") == "True"
    assert run(python, SAYS_ACTIVE, SLM_PLUGIN_DISABLE="1") == "False"
    assert run(python, "import slm_plugin, slm_serve; print(slm_plugin.__file__)").startswith(str(python.parents[1]))
    assert run(python, SAYS_WHETHER_THE_HOST_KNOWS_THE_KEY) == "True"
    subprocess.run([uv, "pip", "uninstall", "--quiet", "--python", str(python), "slm-plugin"], check=True)
    assert installed_files(python) == before
    assert run(python, SAYS_ACTIVE) == "False"


def test_the_installed_command_says_its_version(wheel: Path, uv: str, make_environment):
    python = make_environment()
    install(uv, python, wheel)
    done = subprocess.run([python.parent / "slm", "--version"], capture_output=True, text=True, check=True, cwd="/")
    assert done.stdout.strip() == wheel.name.split("-")[1]


def test_pip_installs_and_uninstalls_it_as_well(wheel: Path, tmp_path: Path):
    subprocess.run([sys.executable, "-m", "venv", str(tmp_path / "with-pip")], check=True)
    python = tmp_path / "with-pip/bin/python"
    before = installed_files(python)
    pip = [str(python), "-m", "pip", "--quiet", "--disable-pip-version-check", "--no-input"]
    subprocess.run([*pip, "install", "--no-deps", "--no-index", str(wheel)], check=True)
    assert run(python, SAYS_ACTIVE) == "True"
    subprocess.run([*pip, "uninstall", "--yes", "slm-plugin"], check=True)
    assert installed_files(python) == before


def test_an_editable_install_is_active_and_runs_the_tree(root: Path, uv: str, make_environment, tmp_path: Path):
    code = f"import hatchling.build as b, os; os.chdir({str(root)!r}); print(b.build_editable({str(tmp_path)!r}))"
    name = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    python = make_environment()
    before = installed_files(python)
    install(uv, python, tmp_path / name)
    assert run(python, SAYS_ACTIVE) == "True"
    found = run(python, "import slm_plugin, slm_serve; print(slm_plugin.__file__, slm_serve.__file__)").split()
    assert found == [str(root / "slm_plugin/__init__.py"), str(root / "serve/slm_serve/__init__.py")]
    subprocess.run([uv, "pip", "uninstall", "--quiet", "--python", str(python), "slm-plugin"], check=True)
    assert installed_files(python) == before


def test_both_packages_carry_the_mark_of_typed_ones(wheel: Path):
    assert {"slm_plugin/py.typed", "slm_serve/py.typed"} <= set(files_of(wheel))


def test_the_wheel_says_what_it_is_and_what_it_offers(wheel: Path):
    files = files_of(wheel)
    (metadata,) = (content for name, content in files.items() if name.endswith(".dist-info/METADATA"))
    headers = email.message_from_bytes(metadata)
    assert headers["Name"] == "slm-plugin"
    assert headers["Description-Content-Type"] == "text/markdown"
    assert {"Typing :: Typed", "Operating System :: POSIX :: Linux"} <= set(headers.get_all("Classifier"))
    assert {"serve", "serve-cpu", "docs", "dev", "eval", "merge", "tiny"} <= set(headers.get_all("Provides-Extra"))
    (entry_points,) = (content for name, content in files.items() if name.endswith(".dist-info/entry_points.txt"))
    assert b"slm = slm_plugin.cli:main" in entry_points
    assert b"serve = slm_serve.cli:serve" in entry_points


def test_the_autoload_line_does_nothing_but_import_its_module(wheel: Path):
    # a .pth line that begins with import is executed at every start of the interpreter
    line = files_of(wheel)["slm_plugin_autoload.pth"].decode().strip()
    assert line.startswith("import slm_plugin_autoload")
    assert "\n" not in line
