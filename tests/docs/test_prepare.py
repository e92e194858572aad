"""The pages about preparing: their YAML is accepted, their commands exist, and no flag, name or term is missing."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from slm_plugin.plugins import Registry
from slm_plugin.prepare.filters import Drop
from slm_plugin.prepare.options import Interleave, load
from slm_plugin.speech.policy import FLAGS
from slm_plugin.strict import parse


@pytest.fixture(scope="module")
def page(root: Path) -> str:
    return (root / "docs/prepare.md").read_text(encoding="utf-8")


def test_every_layout_that_is_shown_is_accepted(page: str):
    blocks = [yaml.safe_load(text) for text in re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)]
    shown = [block["interleave"] for block in blocks if "interleave" in block]
    assert [parse(Drop, block["drop"], "page").flags for block in blocks if "drop" in block] == [["silent", "clipped"]]
    assert [parse(Interleave, given, "page").form for given in shown] == ["words", "phrases", "ratio", "spans"]


def test_every_command_that_is_shown_is_accepted(page: str, root: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(root)
    commands = re.findall(r"^slm prepare ([^#\n]*)", page, re.MULTILINE)
    assert len(commands) == 3
    assert {load(command.split()).name for command in commands} == {"libri_clean_100", "libri", "lj"}


def test_every_corpus_and_aligner_is_in_its_table_and_every_flag_is_named(page: str):
    registry = Registry.load(entry_points=False)
    tables = dict(re.findall(r"## (.*?)\n(.*?)(?=\n## |\Z)", page, re.DOTALL))
    named = {title: set(re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE)) for title, text in tables.items()}
    assert named["What goes in"] == set(registry.corpora.names())
    assert named["Where word times come from"] == set(registry.aligners.names())
    assert all(f"`{voice}`" in tables["What goes in"] for voice in registry.voices.names())
    assert all(f"`{flag}`" in tables["What is done with recordings"] for flag in FLAGS)


def test_the_terms_of_weights_and_voices_are_named(page: str):
    terms = page.split("## Terms")[1]
    assert all(name in terms for name in ("CC BY-NC 4.0", "MMS_FA", "GPL-3", "Seamless v2"))
