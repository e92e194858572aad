"""Every YAML under ``examples/`` is parsed by the entry point that would run it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import yaml

from slm_plugin.pipeline import plan
from slm_plugin.plugins import Registry

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted((ROOT / "examples").rglob("*.yaml"))
N_FILES = 13
"""Count them: a glob that finds nothing would pass every test."""


def kind_of(path):
    content = yaml.safe_load(path.read_text())
    if "steps" in content:
        return "pipeline"
    return "export" if "export_dir" in content else "train"


def test_all_of_them_are_found():
    assert len(FILES) == N_FILES
    assert {kind_of(path) for path in FILES} == {"pipeline", "export", "train"}


@pytest.mark.host
@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT / "examples")))
def test_its_entry_point_accepts_it(path, monkeypatch):
    from llamafactory.hparams import get_infer_args, get_train_args

    from slm_plugin.host import runtime

    # paths in the files are relative to the top of the repository
    monkeypatch.chdir(ROOT)
    kind = kind_of(path)
    if kind == "pipeline":
        assert plan.load(path, Registry.load()).steps
        return
    monkeypatch.setattr(sys, "argv", ["llamafactory-cli", str(path)])
    (get_train_args if kind == "train" else get_infer_args)()
    block = yaml.safe_load(path.read_text()).get("slm")
    active = runtime.active()
    assert (active is None) == (block is None)
    if active is not None and "stage" in block:
        assert active.config.block.stage == block["stage"]
