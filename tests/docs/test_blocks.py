"""Every code block of the README, the guide for contributors and ``docs`` runs, or says why not."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from docs.blocks import LANGUAGES, NEEDS, PICTURES, ROOT, Block, Folder, blocks_of, module_of, pages, parsed
from slm_plugin.config import parse_block
from slm_plugin.experts.plan import Experts
from slm_plugin.infer.options import InferOptions
from slm_plugin.merge.plan import parse_merge
from slm_plugin.pipeline.plan import Pipeline
from slm_plugin.plugins import Registry
from slm_plugin.prepare.filters import Drop
from slm_plugin.prepare.options import Interleave, PrepareOptions
from slm_plugin.strict import parse

BLOCKS = [block for page in pages() for block in blocks_of(page)]
YAML = [block for block in BLOCKS if block.language == "yaml"]
RUNNING = [
    page for page in pages() if any(block.runs and block.language in ("bash", "python") for block in blocks_of(page))
]
IN_FULL = [page for page in RUNNING if any(block.slow for block in blocks_of(page))]


def name_of(value: Any) -> str:
    return str(value) if isinstance(value, Block) else str(value.relative_to(ROOT))


def test_there_are_blocks_of_every_language():
    assert {block.language for block in BLOCKS} == {*LANGUAGES, *PICTURES}
    assert sum(block.runs for block in BLOCKS) > 40


def test_every_fence_is_the_beginning_or_the_end_of_a_block_that_was_found():
    for page in pages():
        fences = re.findall(r"^\s*```", page.read_text(encoding="utf-8"), re.MULTILINE)
        assert len(fences) == 2 * len(blocks_of(page)), f"{name_of(page)}: a fence is indented or left open"


@pytest.mark.parametrize("block", BLOCKS, ids=name_of)
def test_a_block_runs_or_says_why_not(block: Block):
    assert block.language in (*LANGUAGES, *PICTURES), f"{block}: a block needs a language of {LANGUAGES} or {PICTURES}"
    if not block.mark or block.slow:
        return
    needs = re.fullmatch("needs (.*)", block.mark)
    elsewhere = re.fullmatch(r"run by (tests/\S+\.py)", block.mark)
    assert needs or elsewhere, f"{block}: a mark says what is needed or which test runs it, not {block.mark!r}"
    if needs:
        assert needs[1] in NEEDS, f"{block}: needs {needs[1]!r}; accepted: {', '.join(NEEDS)}"
    if elsewhere:
        test = ROOT / elsewhere[1]
        assert test.is_file(), f"{block}: there is no {elsewhere[1]}"
        document = block.page.relative_to(ROOT).as_posix()
        assert document in test.read_text(encoding="utf-8"), f"{elsewhere[1]} does not name {document}"


FILES = [block for block in BLOCKS if block.title and block.language in ("python", "yaml")]


@pytest.mark.parametrize("block", FILES, ids=name_of)
def test_a_file_that_a_page_writes_is_used_by_a_block_that_runs(block: Block):
    if block.page.name == "CONTRIBUTING.md":
        assert f'"{block.title}"' in (ROOT / "tests/docs/test_contributing.py").read_text(encoding="utf-8")
        return
    others = [other.text for other in blocks_of(block.page) if other.runs and other != block]
    assert any(re.search(rf"\b{Path(block.title).stem}\b", text) for text in others)


def test_an_entry_point_that_a_page_announces_is_a_module_that_it_writes():
    announced = [(block, parsed(block)["project"]["entry-points"]) for block in BLOCKS if block.language == "toml"]
    assert announced
    for block, groups in announced:
        written = {Path(other.title).stem for other in blocks_of(block.page) if other.language == "python"}
        assert set(groups["slm_plugin"].values()) <= written


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Folder]:
    made = Folder(tmp_path)
    yield made
    made.close()


@pytest.mark.parametrize("page", RUNNING, ids=name_of)
def test_the_quick_blocks_of_a_page_run_in_order(page: Path, folder: Folder):
    for block in blocks_of(page):
        if block.runs and not block.slow:
            folder.run(block)


@pytest.mark.slow
@pytest.mark.host
@pytest.mark.vllm
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("page", IN_FULL, ids=name_of)
def test_a_page_runs_in_full(page: Path, folder: Folder):
    for block in blocks_of(page):
        if block.runs:
            folder.run(block)


@pytest.mark.parametrize("block", YAML, ids=name_of)
def test_yaml_is_what_the_command_that_it_is_for_accepts(block: Block):
    own = [module_of(other) for other in blocks_of(block.page) if "slm_register" in other.text and other.runs]
    registry = Registry.load(extra=own, entry_points=False)
    content = parsed(block)
    match content:
        case {"steps": _}:
            parse(Pipeline, content, str(block))
        case [{"probe": _}, *_] | {"skills": _} | {"engine": _}:
            around = {"output": "runs/x", "steps": [{"name": "x", "train": "x.yaml"}]}
            found = content if isinstance(content, dict) else {"skills": content}
            for skill in parse(Pipeline, {**around, **found}, str(block)).skills:
                parse(registry.probes.get(skill.probe).Options, dict(skill.options), str(block))
        case {"corpus": _}:
            parse(PrepareOptions, content, str(block))
        case {"interleave": keys}:
            parse(Interleave, keys, str(block))
        case {"drop": keys}:
            parse(Drop, keys, str(block))
        case {"experts": _}:
            parse(Experts, content, str(block))
        case {"data": _, "codec": _}:
            parse(InferOptions, content, str(block))
        case {"method": _, "models": _}:
            parse_merge({key: value for key, value in content.items() if key != "output"}, registry, str(block))
        case {"slm": slm}:
            parse_block(slm, registry, str(block))
        case _:
            assert "model_name_or_path" in content, f"{block}: what is this YAML for?"


@pytest.mark.host
def test_every_other_key_of_a_yaml_is_one_of_the_host():
    from llamafactory.hparams.parser import _INFER_ARGS, _TRAIN_ARGS

    known = {field.name for arguments in (*_TRAIN_ARGS, *_INFER_ARGS) for field in fields(arguments)}
    for block in YAML:
        content = parsed(block)
        if "slm" in content or "model_name_or_path" in content:
            assert set(content) <= known, str(block)
