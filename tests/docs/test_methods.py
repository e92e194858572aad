"""Every method has one page of one form, and the YAML on it is accepted."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from slm_plugin.config import parse_block
from slm_plugin.experts.plan import Experts
from slm_plugin.plugins import Registry
from slm_plugin.strict import parse

PAGES = sorted((Path(__file__).resolve().parents[2] / "docs/methods").glob("*.md"))
HEADINGS = ["What it does", "Formula", "Source", "When it helps", "Cost", "YAML"]


def snippets(path):
    return [yaml.safe_load(text) for text in re.findall(r"```yaml\n(.*?)```", path.read_text(), re.DOTALL)]


def test_there_are_pages():
    assert len(PAGES) == 15


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_a_page_has_the_headings_in_order(path):
    assert re.findall(r"^## (.*)$", path.read_text(), re.MULTILINE) == HEADINGS


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_the_yaml_of_a_page_is_accepted(path):
    registry = Registry.load(entry_points=False)
    found = snippets(path)
    assert found or path.stem == "serving_adapters"
    for content in found:
        if "experts" in content:
            parse(Experts, content, path.name)
        elif "slm" in content:
            parse_block(content["slm"], registry, path.name)


def test_every_mitigation_is_in_the_yaml_of_a_page():
    shown = {
        name
        for path in PAGES
        for content in snippets(path)
        for entry in content.get("slm", {}).get("mitigations", [])
        for name in (entry if isinstance(entry, dict) else [entry])
    }
    assert shown == set(Registry.load(entry_points=False).mitigations.names())


def test_every_merge_method_is_named_on_a_page():
    text = "".join(path.read_text() for path in PAGES if path.stem.startswith("merge_"))
    assert [name for name in Registry.load(entry_points=False).merges.names() if f"`{name}`" not in text] == []


def test_the_readme_leads_to_every_page(root):
    readme = (root / "README.md").read_text()
    assert [path.name for path in PAGES if f"docs/methods/{path.name}" not in readme] == []
