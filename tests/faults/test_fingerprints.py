"""What changed is made again, and nothing else: data, models, scripts and finished weights."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import save_file

from faults.trainings import World
from slm_plugin import card
from slm_plugin.adapters.check import require_same_fingerprint
from slm_plugin.errors import WeightsError
from slm_plugin.pipeline import plan, runner
from slm_plugin.pipeline.digests import Digests
from slm_plugin.pipeline.sources import sources_of
from slm_plugin.weights import digest
from slm_plugin.weights.digest import file_digest


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.chdir(tmp_path)
    world = World(tmp_path)
    write_data({"asr": "one"})
    Path("base").mkdir()
    Path("base/config.json").write_text("{}")
    save_file({"a": torch.zeros(4)}, "base/model.safetensors")
    world.write(model_name_or_path="base", dataset_dir="data", dataset="asr", slm={"stage": "asr"})
    return world


def write_data(rows: dict[str, str], folder: str = "data") -> None:
    Path(folder).mkdir(exist_ok=True)
    for name, text in rows.items():
        Path(folder, f"{name}.jsonl").write_text(text)
    registry = {name: {"file_name": f"{name}.jsonl", "formatting": "slm_asr"} for name in rows}
    Path(folder, "dataset_info.json").write_text(json.dumps(registry))


def reasons(world: World, step: int = 0) -> list[str]:
    return list(runner.intentions(world.plan())[step].reasons)


def test_data_that_a_step_writes_trains_a_finished_model_only_once(world: World):
    code = "import json, pathlib; p = pathlib.Path('made'); p.mkdir(exist_ok=True);"
    code += "(p / 'a.jsonl').write_text('1'); registry = {'a': {'file_name': 'a.jsonl'}};"
    code += "(p / 'dataset_info.json').write_text(json.dumps(registry))"
    steps: list[dict[str, Any]] = [{"name": "data", "command": ["python", "-c", code]}]
    steps.append({"name": "asr", "train": "asr.yaml"})
    world.write(steps=steps, dataset_dir="made", dataset="a")
    assert [outcome.skipped for outcome in world.run()[0]] == [False, False]
    assert [outcome.skipped for outcome in world.run()[0]] == [True, True]
    assert len(world.steps()) == 20


def test_rows_of_another_task_in_the_same_folder_change_nothing(world: World):
    world.run()
    write_data({"asr": "one", "tts": "two"})
    assert reasons(world) == []
    write_data({"asr": "another", "tts": "two"})
    assert reasons(world) == ["the data set asr changed"]


def test_rows_that_are_replayed_count(world: World):
    write_data({"asr": "one", "text": "two"})
    slm = {"stage": "asr", "mitigations": [{"replay": {"sources": {"text": 0.2}}}]}
    world.write(dataset_dir="data", dataset="asr", slm=slm)
    world.run()
    write_data({"asr": "one", "text": "three"})
    assert reasons(world) == ["the data set text changed"]


def cut(path: str) -> None:
    Path(path).write_bytes(Path(path).read_bytes()[:-2])


def overwrite(path: str) -> None:
    # the same size, and the same time of change
    before = Path(path).stat()
    content = Path(path).read_bytes()
    Path(path).write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda: save_file({"a": torch.ones(4)}, "base/model.safetensors"), "folder base|base changed"),
        (lambda: overwrite("base/model.safetensors"), "base changed"),
        (lambda: Path("base/tokenizer.json").write_text("{}"), "base changed"),
        (lambda: cut("out/asr/adapter_model.safetensors"), "adapter_model.safetensors has "),
        (lambda: overwrite("out/asr/adapter_model.safetensors"), "adapter_model.safetensors is not what was written"),
        (lambda: Path("out/asr/adapter_model.safetensors").unlink(), "adapter_model.safetensors is missing"),
    ],
    ids=["base", "base in place", "tokenizer", "cut", "overwritten", "deleted"],
)
def test_changed_models_and_weights_are_noticed(change: Callable[[], object], reason: str, world: World):
    world.run()
    assert reasons(world) == []
    change()
    (found,) = reasons(world)
    assert any(part in found for part in reason.split("|"))


def test_deleted_checkpoints_of_a_finished_training_are_no_change(world: World):
    world.run()
    shutil.rmtree("out/asr/checkpoint-10")
    assert reasons(world) == []


def test_a_script_and_its_configuration_are_inputs_of_a_command(world: World):
    Path("script.py").write_text("print(1)")
    Path("config.yaml").write_text("a: 1")
    world.write(steps=[{"name": "one", "command": ["python", "script.py", "config.yaml", "out/made.yaml"]}])
    world.run()
    assert reasons(world) == []
    # what a step writes is none of its inputs
    Path("out/made.yaml").write_text("b: 1")
    assert reasons(world) == []
    Path("script.py").write_text("print(2)")
    Path("config.yaml").write_text("a: 2")
    assert reasons(world) == ["config.yaml changed", "script.py changed"]


def test_texts_that_are_no_paths_are_no_inputs(world: World):
    steps = [{"name": "e", "evaluate": {"model": "base", "stage": "s"}}]
    world.write(steps=steps)
    content = yaml.safe_load(Path("pipeline.yaml").read_text())
    options = {"data": "data/asr.jsonl", "templates": "x" * 300, "judge": "", "codec": ".", "question": "a\0b"}
    content["skills"] = [{"skill": "q", "probe": "text_match", "options": options}]
    found = sources_of(plan.Step(**steps[0]), plan.Pipeline(**content), [])
    assert [str(path) for path in [*found.files, *found.folders]] == ["data/asr.jsonl", "base"]


def test_a_digest_is_remembered_until_the_file_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "a"
    path.write_text("1")
    os.utime(path, (1, 1))
    read: list[Path] = []
    monkeypatch.setattr("slm_plugin.pipeline.digests.file_digest", lambda found: read.append(found) or "d" * 32)
    monkeypatch.setattr("slm_plugin.pipeline.digests.RECENT_SECONDS", -1.0)
    (tmp_path / ".steps").mkdir()
    digests = Digests(tmp_path)
    assert [digests.file(path), digests.file(path)] == ["d" * 12] * 2
    digests.save()
    assert Digests(tmp_path).file(path) == "d" * 12
    assert read == [path]
    path.write_text("2")
    digests.file(path)
    assert len(read) == 2


def test_a_file_that_has_just_changed_is_read_again(tmp_path: Path):
    path, digests = tmp_path / "a", Digests()
    path.write_text("1")
    first = digests.file(path)
    status = path.stat()
    path.write_text("2")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert digests.file(path) != first


@pytest.fixture
def large(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let files be large from a few bytes on, and the last rows be few."""
    monkeypatch.setattr(digest, "FULL_BYTES", 100)
    monkeypatch.setattr(digest, "LAST_BYTES", 4096)


@pytest.mark.usefixtures("large")
def test_unit_rows_alone_change_the_fingerprint_of_a_large_model(tmp_path: Path):
    rows = torch.zeros(4000, 64)
    (tmp_path / "m").mkdir()
    found = set()
    # the rows of 10 units at the end, one row of them, then one weight of a layer in every sixteenth of it
    for change in (None, slice(3990, 4000), slice(3995, 3996)):
        tensors = {"embed": rows.clone(), "layer": torch.zeros(900_000)}
        if change is not None:
            tensors["embed"][change] = 1.0
        save_file(tensors, tmp_path / "m/model.safetensors")
        found.add(card.fingerprint(tmp_path / "m"))
    tensors = {"embed": rows, "layer": torch.zeros(900_000)}
    tensors["layer"][:61_000] = 1.0
    save_file(tensors, tmp_path / "m/model.safetensors")
    found.add(card.fingerprint(tmp_path / "m"))
    assert len(found) == 4
    assert all(len(value) == 12 and value.startswith("v2") for value in found)


@pytest.mark.usefixtures("large")
def test_other_large_files_are_sampled_over_all_of_their_length(tmp_path: Path):
    path = tmp_path / "a.bin"
    path.write_bytes(bytes(40_000_000))
    first = file_digest(path)
    # 4,096 blocks of 4 KiB: more than the file, so no stretch of 10 KB is left out
    with path.open("r+b") as file:
        file.seek(17_000_000)
        file.write(b"x" * 10_000)
    assert file_digest(path) != first


def test_cards_of_earlier_releases_still_fit_their_bases(tmp_path: Path):
    base, adapter = tmp_path / "base", tmp_path / "adapter"
    base.mkdir()
    save_file({"a": torch.zeros(4)}, base / "model.safetensors")
    for recorded in (card.fingerprint(base), card._first_fingerprint(base)):
        card.write(adapter, {"base": {"path": str(base), "fingerprint": recorded}})
        require_same_fingerprint(adapter, base)
    save_file({"a": torch.ones(4)}, base / "model.safetensors")
    with pytest.raises(WeightsError, match=r"was trained on .* not on"):
        require_same_fingerprint(adapter, base)


def test_the_page_lists_what_is_and_what_is_not_noticed(root: Path):
    page = (root / "docs/how-to/pipelines.md").read_text(encoding="utf-8")
    table = page.split("## Which changes are noticed")[1]
    assert "| noticed |" in table
    assert "not noticed" in table
