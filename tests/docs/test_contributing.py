from __future__ import annotations

import re
import types
from pathlib import Path

import pytest
import torch

from slm_plugin.config import parse_block
from slm_plugin.plugins import Registry, stage_manager


@pytest.fixture(scope="module")
def source(root: Path) -> str:
    """The mitigation that the guide writes down."""
    text = (root / "CONTRIBUTING.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    return block


def test_the_mitigation_of_the_guide_is_thirty_lines_and_works(source: str, monkeypatch: pytest.MonkeyPatch):
    lines_of_code = [line for line in source.splitlines() if line.strip()]
    assert len(lines_of_code) <= 30
    module = types.ModuleType("slow_embeddings")
    # pydantic looks the module of a model up to read the docstrings of its fields
    monkeypatch.setitem(__import__("sys").modules, module.__name__, module)
    exec(compile(source, "CONTRIBUTING.md", "exec"), vars(module))
    registry = Registry.load(extra=[module], entry_points=False)
    config = parse_block({"mitigations": [{"slow_embeddings": {"factor": 0.5}}]}, registry)
    model = torch.nn.ModuleDict({"embed_tokens": torch.nn.Embedding(2, 2), "q_proj": torch.nn.Linear(2, 2)})
    (factors,) = stage_manager(config.instances).hook.slm_parameter_groups(run=None, model=model)
    assert factors == {"embed_tokens.weight": 0.5}


def test_the_markers_of_the_guide_are_those_of_the_configuration(root: Path):
    text = (root / "CONTRIBUTING.md").read_text(encoding="utf-8")
    declared = re.findall(r'^    "(\w+): ', (root / "pyproject.toml").read_text(encoding="utf-8"), re.MULTILINE)
    assert set(re.findall(r"^\| (\w+) \| `", text, re.MULTILINE)) - {"plain"} == set(declared)
