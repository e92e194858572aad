"""The shape of the tree: small files, and packages that import downwards only."""

import statistics
import subprocess
import sys
import tomllib
from pathlib import Path

MOST_LINES = 400
MEDIAN_LINES = 120
WRITTEN_BY_HAND = ("slm_plugin", "serve", "benchmarks", "examples", "tests", "docs", "dataset_info")
GENERATED = ("docs/reference",)


def lengths(root: Path, tracked: frozenset[str], *endings: str) -> dict[str, int]:
    """Lines of the files written by hand, by their path."""
    found = [path for folder in WRITTEN_BY_HAND for path in (root / folder).rglob("*") if path.suffix in endings]
    found += [root / name for name in tracked if "/" not in name and Path(name).suffix in endings]
    names = {path.relative_to(root).as_posix(): path for path in found if path.is_file()}
    return {
        name: path.read_text(encoding="utf-8").count("\n")
        for name, path in names.items()
        if not name.startswith(GENERATED)
    }


def test_no_file_is_longer_than_one_can_hold_in_mind(root: Path, tracked: frozenset[str]):
    found = lengths(root, tracked, ".py", ".js", ".md")
    assert len(found) > 600
    assert {name: n for name, n in found.items() if n > MOST_LINES} == {}


def test_half_of_the_modules_fit_on_a_screen_or_two(root: Path, tracked: frozenset[str]):
    code = lengths(root, tracked, ".py", ".js")
    for folder in ("slm_plugin/", "serve/", "tests/", ""):
        of_folder = [n for name, n in code.items() if name.startswith(folder)]
        assert statistics.median(of_folder) <= MEDIAN_LINES, folder or "all"


def test_every_package_stands_in_a_layer_and_imports_downwards_only(root: Path):
    tools = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["tool"]
    layered = [contract for contract in tools["importlinter"]["contracts"] if contract["type"] == "layers"]
    assert [contract["containers"] for contract in layered] == [["slm_plugin"], ["slm_serve"]]
    assert all(contract["exhaustive"] and not contract.get("ignore_imports") for contract in layered)
    command = [Path(sys.executable).with_name("lint-imports"), "--no-cache"]
    ended = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
