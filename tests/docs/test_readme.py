"""What the README and the page of a real model say holds: file map, YAML, commands and links."""

from __future__ import annotations

import json
import re
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import yaml

from slm_plugin.config import parse_block
from slm_plugin.plugins import Registry


@pytest.fixture(scope="module")
def readme(root: Path) -> str:
    return (root / "README.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def recipes(root: Path) -> dict[str, dict[str, Any]]:
    """The YAML files of the recipe by name."""
    page = (root / "docs/how-to/real-model.md").read_text(encoding="utf-8")
    shown = re.findall(r"`(\w+\.yaml)` \((?:train|export)\).*?```yaml\n(.*?)```", page, re.DOTALL)
    assert len(shown) == page.count("```yaml") == 5
    return {name: yaml.safe_load(text) for name, text in shown}


def test_the_file_map_is_the_tree(readme: str, tracked: frozenset[str]):
    table = readme.split("## File map")[1].split("\n## ")[0]
    links = [link for row in re.findall(r"^\| (\[`[^|]*) \|", table, re.MULTILINE) for link in row.split(", ")]
    mapped = {re.fullmatch(r"\[`(.+?)/?`\]\(\1\)", link)[1] for link in links}
    shown = [name for name in tracked if not name.startswith(".")]
    top = {name.split("/")[0] for name in shown} - {"slm_plugin"}
    package = {"/".join(name.split("/")[:2]) for name in shown if name.startswith("slm_plugin/")}
    assert mapped == top | package


def test_every_slm_block_of_the_recipe_is_accepted(recipes: dict[str, dict[str, Any]], registry: Registry):
    configs = {name: parse_block(recipe["slm"], registry, name) for name, recipe in recipes.items()}
    assert [config.block.stage for config in configs.values()] == [None, "asr", "tts", "sqa", "sqa"]
    assert configs["units_base.yaml"].unit_count == 10_000


def test_every_stage_of_the_recipe_stands_on_the_one_before(recipes: dict[str, dict[str, Any]]):
    assert recipes["asr.yaml"]["model_name_or_path"] == recipes["units_base.yaml"]["export_dir"]
    assert recipes["tts.yaml"]["adapter_name_or_path"] == recipes["asr.yaml"]["output_dir"]
    assert recipes["sqa.yaml"]["adapter_name_or_path"] == recipes["tts.yaml"]["output_dir"]
    assert recipes["export.yaml"]["adapter_name_or_path"] == recipes["sqa.yaml"]["output_dir"]


def test_every_data_set_of_the_recipe_is_registered(recipes: dict[str, dict[str, Any]], root: Path):
    known = json.loads((root / "dataset_info/dataset_info.json").read_text(encoding="utf-8"))
    trained = [recipe for recipe in recipes.values() if "dataset" in recipe]
    assert len(trained) == 3
    for recipe in trained:
        assert known[recipe["dataset"]]["formatting"] == f"slm_{recipe['slm']['stage']}"
        (replay,) = recipe["slm"]["mitigations"]
        assert set(replay["replay"]["sources"]) <= set(known)


@pytest.mark.host
def test_every_other_key_of_the_recipe_is_one_of_the_host(recipes: dict[str, dict[str, Any]]):
    from llamafactory.hparams.parser import _INFER_ARGS, _TRAIN_ARGS

    train = {field.name for cls in _TRAIN_ARGS for field in fields(cls)}
    infer = {field.name for cls in _INFER_ARGS for field in fields(cls)}
    for name, recipe in recipes.items():
        assert set(recipe) <= (infer if "export_dir" in recipe else train), name


def test_every_make_target_that_is_named_exists(readme: str, root: Path):
    targets = set(re.findall(r"^([a-z-]+):", (root / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    contributing = (root / "CONTRIBUTING.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`make ([a-z-]+)`|^make ([a-z-]+)", readme + contributing, re.MULTILINE))
    flat = {name for pair in named for name in pair if name}
    assert {"demo", "test", "setup", "check"} <= flat <= targets


def test_every_verb_of_the_command_that_is_named_exists(readme: str):
    from typer.main import get_command

    from slm_plugin.cli import make_app

    known = set(get_command(make_app()).commands)
    named = set(re.findall(r"\bslm ([a-z]+) (?:--|[A-Z]|\S+/)", readme))
    assert {"run", "serve"} <= named <= known


def documents(root: Path, tracked: frozenset[str]) -> list[Path]:
    folders = ("docs", "dataset_info", "examples")
    top = [root / name for name in tracked if "/" not in name and name.endswith(".md")]
    return [*top, *(path for folder in folders for path in (root / folder).rglob("*.md"))]


def test_every_relative_link_of_every_document_leads_somewhere(root: Path, tracked: frozenset[str]):
    found = documents(root, tracked)
    assert len(found) >= 10
    broken = [
        f"{path.relative_to(root)}: {target}"
        for path in found
        for target in re.findall(r"\]\(([^)\s#]+)", path.read_text(encoding="utf-8"))
        if "://" not in target and not (path.parent / target).exists()
    ]
    assert broken == []
