"""A killed process or a full disk leaves the old model or the new one, and a registry keeps every entry."""

from __future__ import annotations

import errno
import itertools
import json
import os
import signal
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from faults.trainings import World
from slm_plugin.data import registry
from slm_plugin.errors import DataError, PipelineError
from slm_plugin.pipeline import records
from slm_plugin.pipeline.states import look
from slm_plugin.weights import durable, staging
from slm_plugin.weights.checkpoint import INDEX_FILE, Checkpoint
from slm_plugin.weights.staging import make_partial, staged

CHANGES = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.chmod", "shutil.rmtree", "ctypes.dlsym"}


def write_model(folder: Path, value: int, n_shards: int) -> None:
    """Write a model whose tensors all hold a value, in as many shards."""
    names = [f"model-{number:05d}-of-{n_shards:05d}.safetensors" for number in range(1, n_shards + 1)]
    for number, name in enumerate(names):
        save_file({f"t{number}": torch.full((2,), float(value))}, folder / name)
    places = {f"t{number}": name for number, name in enumerate(names)}
    (folder / INDEX_FILE).write_text(json.dumps({"weight_map": places}))
    (folder / "config.json").write_text(json.dumps({"value": value}))


def values(folder: Path) -> set[float]:
    weights = Checkpoint(folder)
    found = {float(value) for name in weights.names() for value in weights.tensor(name)}
    return found | {float(json.loads((folder / "config.json").read_text())["value"])}


def killed_at(number: int, destination: Path) -> bool:
    """Publish a model in a fork that kills itself before its change of that number; tell whether it came that far."""
    child = os.fork()
    if child == 0:
        left = itertools.count(number, -1)

        def count(event: str, arguments: tuple[object, ...]) -> None:
            if event in CHANGES and next(left) == 1:
                os.kill(os.getpid(), signal.SIGKILL)

        with staged(destination) as partial:
            write_model(partial, 2, 3)
            sys.addaudithook(count)
        os._exit(0)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


@pytest.mark.parametrize("n_shards", [3, 2])
def test_a_kill_at_any_moment_leaves_the_old_model_or_the_new_one(n_shards: int, tmp_path: Path):
    found = []
    for number in itertools.count(1):
        destination = tmp_path / f"{number}" / "model"
        destination.mkdir(parents=True)
        write_model(destination, 1, n_shards)
        (destination / "notes").write_text("mine")
        killed = killed_at(number, destination)
        found.append(values(destination))
        assert (destination / "notes").read_text() == "mine"
        # what is left beside it goes with the next model
        with staged(destination) as partial:
            write_model(partial, 3, 1)
        assert values(destination) == {3.0}
        assert [path.name for path in destination.parent.iterdir()] == ["model"]
        if not killed:
            break
    assert set(map(tuple, found)) == {(1.0,), (2.0,)}
    assert len(found) > 5


def test_without_an_exchange_old_and_new_shards_are_never_a_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(staging, "exchange", lambda one, other: False)
    for number in itertools.count(1):
        destination = tmp_path / f"{number}" / "model"
        destination.mkdir(parents=True)
        write_model(destination, 1, 3)
        killed = killed_at(number, destination)
        if (destination / INDEX_FILE).is_file():
            assert len(values(destination)) == 1
        if not killed:
            break
    assert values(destination) == {2.0}


def test_a_model_may_be_behind_a_link_to_another_place(tmp_path: Path):
    (tmp_path / "disk/model").mkdir(parents=True)
    (tmp_path / "model").symlink_to(tmp_path / "disk/model")
    with staged(tmp_path / "model") as partial:
        assert partial.parent == tmp_path / "disk"
        write_model(partial, 1, 2)
    assert (tmp_path / "model").is_symlink()
    assert values(tmp_path / "model") == {1.0}


def test_folders_of_killed_processes_are_removed_and_those_of_others_are_not(tmp_path: Path):
    child = os.fork()
    if child == 0:
        make_partial(tmp_path / "model")
        os._exit(0)
    os.waitpid(child, 0)
    (left,) = tmp_path.iterdir()
    at_work = make_partial(tmp_path / "model")
    assert not left.exists()
    other = make_partial(tmp_path / "model")
    assert sorted(tmp_path.iterdir()) == sorted([at_work, other])
    staging.discard(at_work)
    staging.discard(other)
    assert list(tmp_path.iterdir()) == []


def test_what_is_recorded_is_on_the_disk_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    order: list[str] = []
    fsync, replace = os.fsync, Path.replace

    def note_fsync(descriptor: int) -> None:
        order.append(f"fsync {Path(os.readlink(f'/proc/self/fd/{descriptor}')).name.split('.')[1:2] or 'folder'}")
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", note_fsync)
    monkeypatch.setattr(Path, "replace", lambda self, target: order.append("replace") or replace(self, target))
    records.write(tmp_path, records.StepRecord("one", "f", 1.0))
    assert order == ["fsync ['one']", "replace", "fsync ['steps']"]


def test_two_processes_that_register_at_the_same_time_lose_no_entry(tmp_path: Path):
    n_processes, n_entries = 4, 25
    for number in range(n_processes):
        if os.fork() == 0:
            for entry in range(n_entries):
                registry.add(tmp_path, {f"{number}-{entry}": {"file_name": "x"}})
            os._exit(0)
    for _ in range(n_processes):
        assert os.wait()[1] == 0
    assert len(registry.read(tmp_path / "dataset_info.json")) == n_processes * n_entries
    assert [path.name for path in tmp_path.iterdir()] == ["dataset_info.json"]


def test_a_damaged_registry_is_refused_and_stays(tmp_path: Path):
    (tmp_path / "dataset_info.json").write_text("[1")
    with pytest.raises(DataError, match="is not valid JSON"):
        registry.add(tmp_path, {"a": {}})
    assert (tmp_path / "dataset_info.json").read_text() == "[1"


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.chdir(tmp_path)
    return World(tmp_path)


def test_a_full_disk_at_the_record_loses_no_training(world: World, monkeypatch: pytest.MonkeyPatch):
    write = durable.write_text

    def full(path: Path, text: str) -> None:
        if path.name == "asr.json":
            raise OSError(errno.ENOSPC, "No space left on device")
        write(path, text)

    with monkeypatch.context() as patch:
        patch.setattr(durable, "write_text", full)
        with pytest.raises(
            PipelineError, match=r"step asr has ended, but its record cannot be written \(No space left"
        ):
            world.run()
    weights = load_file("out/asr/adapter_model.safetensors")
    assert world.intention().notes == ("its training had ended, but was not recorded",)
    outcomes, shown = world.run()
    assert outcomes[0].skipped
    assert "it is taken as it is" in shown
    # nothing was trained again
    assert len(world.steps()) == 20
    assert load_file("out/asr/adapter_model.safetensors")["a"].equal(weights["a"])
    assert world.run()[0][0].skipped


def test_while_a_step_runs_there_is_room_for_its_record(world: World):
    world.killed_at(5)
    assert Path("out/.steps/asr.room").stat().st_size >= 1 << 18
    world.run()
    assert not Path("out/.steps/asr.room").exists()


def test_a_training_with_an_evaluation_behind_it_is_not_taken_for_ended(world: World):
    world.write(val_size=0.1)
    world.run()
    records.forget(Path("out"), "asr")
    record = {"name": "asr", "fingerprint": "f", "inputs": {}, "replaced": [], "record": None}
    record["fingerprint"] = look(world.plan())["asr"].inputs.fingerprint
    records.write_json(Path("out/.steps/asr.attempt"), record)
    assert world.intention().notes == ("goes on from out/asr/checkpoint-20",)
