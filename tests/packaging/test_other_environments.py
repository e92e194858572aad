"""The block on every Python that the classifiers name, and on LLaMA-Factory's development version."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest

from slm_plugin.host import surface

PYTHONS = ("3.11", "3.12", "3.13")
DEVELOPMENT = surface.TESTED_VERSIONS[1]
# the development version excludes the transformers that the constraints name
TRANSFORMERS = "transformers==5.5.4"

TRAIN = """
import json, platform, sys
from importlib.metadata import version
from pathlib import Path
from host.world import UNITS, export_config, train_config, write_data
from tiny_models import make_model
from llamafactory.train.tuner import export_model, run_exp
from slm_plugin.host import surface

folder = Path(sys.argv[1])
data, model = write_data(folder / "data"), make_model(folder / "llm")
mitigations = [{"replay": {"sources": {"llm": 0.5}}}, "l2_anchor", "kl_anchor", "llrd"]
slm = {"stage": "asr", "units": {"count": UNITS}, "mitigations": mitigations}
run_exp(train_config(model, data, folder / "asr", slm=slm))
run_exp(train_config(model, data, folder / "without", stage="llm", slm=None))
run_exp(train_config(model, data, folder / "pt", cutoff_len=64) | {"stage": "pt"})
export_model(export_config(model, folder / "model", adapter=folder / "asr", slm={}))
surface.require()
card = json.loads((folder / "model/slm.json").read_text())
print(json.dumps([platform.python_version(), version("llamafactory"), card["units"]["count"]]))
"""


def child(python: Path, code: str, root: Path, *arguments: str, **environment: str) -> str:
    """Run code in another environment, with the tests' helpers, and return what it prints."""
    kept = {name: value for name, value in os.environ.items() if name != "SLM_PLUGIN_DISABLE"}
    variables = {**kept, "PYTHONPATH": str(root / "tests"), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    command = [str(python), "-c", code, *arguments]
    done = subprocess.run(
        command, env={**variables, **environment}, capture_output=True, text=True, check=False, timeout=900
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout.strip().splitlines()[-1]


def interpreter(version: str, uv: str) -> Path:
    """Return an interpreter of a Python version: on PATH, known to uv, or in a folder of pyenv."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    on_path = shutil.which(f"python{version}")
    found = [Path(on_path)] if on_path else []
    asked = subprocess.run([uv, "python", "find", "--offline", version], capture_output=True, text=True, check=False)
    found += [Path(asked.stdout.strip())] if asked.returncode == 0 else []
    found += sorted(pyenv.glob(f"{version}.*/bin/python"))
    for path in found:
        done = subprocess.run([path, "--version"], capture_output=True, text=True, check=False)
        if done.stdout.startswith(f"Python {version}."):
            return path
    pytest.skip(f"Python {version} is needed: uv python install {version}, or put python{version} on PATH")


def test_the_classifiers_name_the_tested_pythons_and_the_range_admits_the_tested_hosts(root: Path):
    from packaging.requirements import Requirement

    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    named = [re.findall(r"Python :: (3\.\d+)$", text) for text in project["classifiers"]]
    assert tuple(version for found in named for version in found) == PYTHONS
    (host,) = [one for one in map(Requirement, project["dependencies"]) if one.name == "llamafactory"]
    for version in surface.TESTED_VERSIONS:
        # as pip and uv do for a version that is installed already or named by an address
        assert host.specifier.contains(version, prereleases=True)


@pytest.mark.slow
@pytest.mark.timeout(2400)
@pytest.mark.parametrize("version", PYTHONS)
def test_the_block_trains_on_every_python_that_is_named(
    version: str, uv: str, wheel: Path, root: Path, tmp_path: Path
):
    path = interpreter(version, uv)
    python = tmp_path / "environment/bin/python"
    subprocess.run([uv, "venv", "--quiet", "--python", str(path), str(python.parents[1])], check=True)
    # the pins are those of the tests; llamafactory is named so that its own dependencies come with it
    install = [uv, "pip", "install", "--quiet", "--python", str(python), f"slm-plugin @ {wheel.as_uri()}"]
    constraints = root / "requirements/constraints-cpu.txt"
    done = subprocess.run(
        [*install, "pytest", "--constraints", str(constraints)], capture_output=True, text=True, check=False
    )
    if done.returncode and re.search("error sending request|network|dns|connect", done.stderr, re.IGNORECASE):
        pytest.skip(f"no package index can be reached: {done.stderr[:200]}")
    assert done.returncode == 0, done.stderr
    running, _, units = json.loads(child(python, TRAIN, root, str(tmp_path)))
    assert running.startswith(f"{version}.")
    assert units == 50


@pytest.fixture
def development(make_environment: Any, uv: str, wheel: Path) -> Path:
    """An environment with LLaMA-Factory's development version in place of the release."""
    source = os.environ.get("LLAMAFACTORY_SOURCE")
    if not source:
        pytest.skip(f"LLAMAFACTORY_SOURCE is needed: the folder of a LLaMA-Factory checkout of version {DEVELOPMENT}")
    python: Path = make_environment()
    install = [uv, "pip", "install", "--quiet", "--no-deps", "--python", str(python)]
    subprocess.run([*install, TRANSFORMERS, source, str(wheel)], check=True)
    return python


@pytest.mark.slow
def test_the_block_trains_on_the_development_version_of_the_host(development: Path, root: Path, tmp_path: Path):
    code = "from slm_plugin.host import surface; print(surface.all_differences())"
    assert child(development, code, root, SLM_PLUGIN_DISABLE="1") == "[]"
    _, host, units = json.loads(child(development, TRAIN, root, str(tmp_path)))
    assert (host, units) == (DEVELOPMENT, 50)


@pytest.mark.slow
def test_the_seeded_rows_of_the_units_are_the_same_on_both_versions_of_the_host(
    development: Path, make_environment: Any, uv: str, wheel: Path, root: Path, tmp_path: Path
):
    released = make_environment()
    subprocess.run([uv, "pip", "install", "--quiet", "--no-deps", "--python", str(released), str(wheel)], check=True)
    code = (
        "import sys; from pathlib import Path\n"
        "from host.world import export_config; from tiny_models import make_model\n"
        "from llamafactory.train.tuner import export_model\n"
        "folder = Path(sys.argv[1]); export_model(export_config(make_model(folder / 'llm'), folder / 'base'))\n"
    )
    written = []
    for name, python in (("released", released), ("development", development)):
        child(python, code + "print()", root, str(tmp_path / name))
        written.append((tmp_path / name / "base/model.safetensors").read_bytes())
    assert written[0] == written[1]


@pytest.mark.slow
@pytest.mark.host
def test_a_host_of_another_form_trains_without_the_block_and_refuses_it_by_name(root: Path, tmp_path: Path):
    import sys

    code = (
        "import sys; from pathlib import Path\n"
        "from slm_plugin.host import surface\n"
        "surface.SURFACE = {m: {s: p and ('other',) for s, p in f.items()} for m, f in surface.SURFACE.items()}\n"
        "from host.world import train_config, write_data\n"
        "from tiny_models import make_model\n"
        "from llamafactory.train.tuner import run_exp\n"
        "folder = Path(sys.argv[1])\n"
        "(folder / 'rows').mkdir()\n"
        '(folder / \'rows/dataset_info.json\').write_text(\'{"rows": {"file_name": "rows.json"}}\')\n'
        "(folder / 'rows/rows.json').write_text('[' + ', '.join(8 * [\n"
        '    \'{"instruction": "say", "input": "", "output": "hello"}\']) + \']\')\n'
        "model = make_model(folder / 'llm')\n"
        "config = train_config(model, folder / 'rows', folder / 'adapter', stage='rows', slm=None)\n"
        "run_exp(config)\n"
        "try:\n"
        "    run_exp(config | {'slm': {}})\n"
        "except ValueError as error:\n"
        "    print((folder / 'adapter/adapter_model.safetensors').is_file(), error)\n"
    )
    assert child(Path(sys.executable), code, root, str(tmp_path)).startswith("True Some keys are not used")
