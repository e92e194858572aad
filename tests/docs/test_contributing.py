"""The four examples of the guide for contributors are built from its text and work."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from docs.blocks import ROOT, Block, blocks_of, module_of
from slm_plugin.config import parse_block
from slm_plugin.data.rows import DataError
from slm_plugin.errors import VocabularyError
from slm_plugin.plugins import Registry, stage_manager
from slm_plugin.speech.codecs import load_codec
from slm_plugin.strict import parse

EXAMPLES = {block.title: block for block in blocks_of(ROOT / "CONTRIBUTING.md") if block.language == "python"}


@pytest.fixture(scope="module")
def modules() -> Iterator[dict[str, ModuleType]]:
    made = {title: module_of(block) for title, block in EXAMPLES.items()}
    yield made
    for module in made.values():
        sys.modules.pop(module.__name__)


@pytest.fixture(scope="module")
def extended(modules: dict[str, ModuleType]) -> Registry:
    """What there is when all four are registered."""
    return Registry.load(extra=modules.values(), entry_points=False)


def test_there_is_an_example_of_every_kind():
    assert list(EXAMPLES) == ["slow_embeddings.py", "continuation.py", "zero_crossings.py", "answers_at_all.py"]


@pytest.mark.parametrize("block", EXAMPLES.values(), ids=EXAMPLES)
def test_an_example_is_in_the_style_of_the_project(block: Block):
    command = [
        sys.executable,
        "-m",
        "ruff",
        "check",
        "--quiet",
        "--stdin-filename",
        f"slm_plugin/stages/{block.title}",
    ]
    done = subprocess.run([*command, "-"], input=block.text, capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stdout


def test_the_mitigation_is_thirty_lines_and_works(extended: Registry):
    assert sum(bool(line.strip()) for line in EXAMPLES["slow_embeddings.py"].text.splitlines()) <= 30
    config = parse_block({"mitigations": [{"slow_embeddings": {"factor": 0.5}}]}, extended)
    model = torch.nn.ModuleDict({"embed_tokens": torch.nn.Embedding(2, 2), "q_proj": torch.nn.Linear(2, 2)})
    (factors,) = stage_manager(config.instances).hook.slm_parameter_groups(run=None, model=model)
    assert factors == {"embed_tokens.weight": 0.5}


def test_the_stage_halves_an_utterance(extended: Registry):
    stage = parse_block({"stage": "continuation"}, extended).instances[0]
    sample = stage.sample({"discrete_unit": [3, 7, 1]}, 10)
    assert (sample.user, sample.assistant) == ("<|3|>", "<|7|><|1|>")
    assert stage.sample({"units": [3]}, 10) is None
    with pytest.raises(DataError, match="'units' or 'discrete_unit'"):
        stage.sample({"text": "anna"}, 10)


@given(units=st.lists(st.integers(0, 63), max_size=12), cut=st.integers(0, 12))
def test_the_codec_speaks_in_pieces_what_it_speaks_at_once_and_hears_itself(
    extended: Registry, units: list[int], cut: int
):
    codec = load_codec("zero_crossings", extended)
    stream = codec.stream()
    joined = np.concatenate([stream.push(units[:cut]), stream.push(units[cut:]), stream.finish()])
    assert np.array_equal(joined, codec.decode(units))
    assert codec.encode(joined).values == tuple(units)


def test_the_codec_refuses_units_that_it_does_not_have(extended: Registry):
    with pytest.raises(VocabularyError):
        load_codec("zero_crossings", extended).decode([64])


def test_the_probe_counts_answers_with_words(extended: Registry, tmp_path: Path):
    class Book:
        vocabulary = None

        def answer(self, prompts: list[str], max_new_tokens: int) -> list[str]:
            return [{"a": "yes", "b": " ", "c": "<|3|>", "d": "no<|3|>"}[prompt] for prompt in prompts]

    (tmp_path / "rows.jsonl").write_text("".join(json.dumps({"input": letter}) + "\n" for letter in "abcd"))
    kind: Any = extended.probes.get("answers_at_all")
    probe = kind(parse(kind.Options, {"data": str(tmp_path / "rows.jsonl")}, "options"))
    score = probe.score("talks", Book())
    # two of four hold a word
    assert (score.value, score.n, list(score.items)) == (0.5, 4, [(1, 1), (0, 1), (0, 1), (1, 1)])


def test_the_markers_of_the_guide_are_those_of_the_configuration(root: Path):
    text = (root / "CONTRIBUTING.md").read_text(encoding="utf-8")
    declared = re.findall(r'^    "(\w+): ', (root / "pyproject.toml").read_text(encoding="utf-8"), re.MULTILINE)
    assert set(re.findall(r"^\| (\w+) \| `", text, re.MULTILINE)) - {"plain"} == set(declared)
