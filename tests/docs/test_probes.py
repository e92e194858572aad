"""The page of probes: complete, and its examples are valid."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

import yaml

from slm_plugin.eval.match import matches
from slm_plugin.eval.normalise import Normalisation
from slm_plugin.pipeline.plan import Pipeline, Skill
from slm_plugin.plugins import Registry
from slm_plugin.strict import parse


def blocks(root: Path) -> list[object]:
    text = (root / "docs/probes.md").read_text(encoding="utf-8")
    return [yaml.safe_load(block) for block in re.findall(r"^```yaml\n(.*?)^```", text, re.MULTILINE | re.DOTALL)]


def test_every_built_in_probe_is_on_the_page(root: Path, registry: Registry) -> None:
    text = (root / "docs/probes.md").read_text(encoding="utf-8")
    assert sorted(re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE)) == registry.probes.names()


def test_every_skill_on_the_page_is_valid(root: Path, registry: Registry) -> None:
    skills = [parse(Skill, found, "probes.md") for block in blocks(root) if isinstance(block, list) for found in block]
    assert len(skills) == 7
    for skill in skills:
        parse(registry.probes.get(skill.probe).Options, skill.options, skill.skill)


def test_the_pipeline_key_on_the_page_is_one(root: Path) -> None:
    (keys,) = [block for block in blocks(root) if isinstance(block, dict)]
    assert set(keys) <= set(Pipeline.model_fields)


def test_the_verdicts_on_the_page_are_those_of_the_matcher(root: Path) -> None:
    text = (root / "docs/probes.md").read_text(encoding="utf-8")
    _, table = text.split("| answer | right answer | `case` | `punctuation` | `english` |\n")
    rows = [line.strip("| ").split(" | ") for line in table.split("\n\n")[0].splitlines()[1:]]
    assert len(rows) == 18
    for answer, right, *verdicts in rows:
        for name, verdict in zip(get_args(Normalisation), verdicts, strict=True):
            assert matches(answer, [right], "contains", name) is (verdict == "yes"), (answer, right, name)
