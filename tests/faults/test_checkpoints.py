"""No checkpoint and no result is deleted before a better one exists."""

from __future__ import annotations

import errno
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from faults.trainings import World, is_alive, wait_for
from host.world import UNITS, export_config, train_config, write_data
from pipeline.test_host import descendants
from slm_plugin import card
from slm_plugin.cli import make_app
from slm_plugin.errors import PipelineError
from slm_plugin.pipeline import attempts, checkpoints, records
from slm_plugin.weights import durable
from tiny_models import make_model


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.chdir(tmp_path)
    return World(tmp_path)


def asides(folder: str = "out") -> list[Path]:
    return sorted(path for path in Path(folder).iterdir() if attempts.ASIDE.fullmatch(path.name))


def test_a_training_that_was_killed_goes_on_from_its_last_checkpoint(world: World):
    world.killed_at(18)
    assert world.intention().reasons == ("it has not been finished",)
    assert world.intention().notes == ("goes on from out/asr/checkpoint-10",)
    _, shown = world.run()
    assert "asr: goes on from out/asr/checkpoint-10" in shown
    assert [step.split(":")[1] for step in world.steps()] == [str(n) for n in [*range(1, 19), *range(11, 21)]]
    assert asides() == []
    assert yaml.safe_load(Path("out/.steps/asr.yaml").read_text())["overwrite_output_dir"] is False
    assert world.run()[0][0].skipped


def test_a_checkpoint_that_is_not_complete_is_not_resumed_from(world: World):
    world.killed_at(20)
    (Path("out/asr/checkpoint-20") / "adapter_model.safetensors").write_bytes(b"cut")
    assert world.intention().notes == ("goes on from out/asr/checkpoint-10",)
    world.run()
    assert world.steps()[20:] == [f"0.1:{n}" for n in range(11, 21)]
    assert checkpoints.is_complete(Path("out/asr/checkpoint-20"), 20)


@pytest.mark.parametrize("missing", ["optimizer.pt", "trainer_state.json", "adapter_model.safetensors"])
def test_a_checkpoint_needs_weights_optimizer_and_state(missing: str, world: World):
    world.run()
    folder = Path("out/asr/checkpoint-10")
    assert checkpoints.is_complete(folder, 10)
    assert not checkpoints.is_complete(folder, 11)
    (folder / missing).unlink()
    assert not checkpoints.is_complete(folder, 10)


def test_checkpoints_without_an_optimizer_are_not_resumed_from_but_kept(world: World):
    world.killed_at(18)
    Path("out/asr/checkpoint-10/optimizer.pt").unlink()
    world.run()
    (aside,) = asides()
    assert (aside / "checkpoint-10" / "adapter_model.safetensors").is_file()
    assert world.steps()[18:] == [f"0.1:{n}" for n in range(1, 21)]


@pytest.mark.parametrize("output_dir", ["out", "."])
def test_a_step_that_writes_the_folder_of_the_records_is_refused(output_dir: str, world: World):
    world.write(output_dir=output_dir)
    with pytest.raises(PipelineError, match=r"step asr writes \S+, which holds the records of the pipeline in out"):
        world.run()
    assert world.steps() == []


def test_a_disk_that_takes_nothing_is_one_line(world: World, monkeypatch: pytest.MonkeyPatch):
    def full(path: Path, text: str) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(durable, "write_text", full)
    with pytest.raises(PipelineError, match=r"out/lineage\.json cannot be written \(No space left on device\)"):
        world.run()


def test_with_other_inputs_it_starts_anew_and_the_checkpoints_are_kept_and_reported(world: World):
    world.killed_at(18)
    world.write(learning_rate=0.2)
    intention = world.intention()
    assert intention.reasons == ("it has not been finished", "asr.yaml changed since it was started")
    assert re.fullmatch(r"moves out/asr aside \(\d+\.\d kB\)", intention.notes[0])
    _, shown = world.run()
    (aside,) = asides()
    assert (aside / "checkpoint-10" / "trainer_state.json").is_file()
    assert f"out/asr as it was is kept in {aside}" in shown
    assert world.steps()[18:] == [f"0.2:{n}" for n in range(1, 21)]
    # nothing is lost without being asked for
    world.write(learning_rate=0.3)
    world.run(restart=True)
    assert asides() == [aside]
    shutil.rmtree(aside)


def test_restart_begins_at_the_first_step_and_deletes_what_it_replaces(world: World):
    world.killed_at(18)
    assert world.intention(restart=True).notes[0].startswith("moves out/asr aside")
    world.run(restart=True)
    assert world.steps()[18:] == [f"0.1:{n}" for n in range(1, 21)]
    assert asides() == []


def test_a_finished_result_stays_until_the_new_one_is_complete(world: World):
    world.run()
    world.write(learning_rate=0.2)
    world.killed_at(5)
    (aside,) = asides()
    assert (aside / "rate").read_text() == "0.1"
    # with the inputs that it was made from, it is the result again
    world.write(learning_rate=0.1)
    assert world.intention().notes[0] == "its result was moved aside and is put back"
    outcomes, shown = world.run()
    assert outcomes[0].skipped
    assert "is put back" in shown
    assert Path("out/asr/rate").read_text() == "0.1"
    assert asides() == []


def test_an_export_is_replaced_when_the_new_one_is_complete(world: World):
    (world.folder / "fake/llamafactory/cli.py").write_text(
        "import pathlib, yaml, sys\nc = yaml.safe_load(open(sys.argv[2]))\np = pathlib.Path(c['export_dir'])\n"
        "p.mkdir()\n(p / 'x').write_text(str(c['size']))\nsys.exit(c['size'] == 2)\n"
    )
    steps = [{"name": "model", "export": "model.yaml"}]
    for size in (1, 2, 3):
        Path("model.yaml").write_text(yaml.safe_dump({"export_dir": "out/model", "size": size}))
        world.write(steps=steps)
        if size == 2:
            with pytest.raises(PipelineError, match="ended with status 1"):
                world.run()
            assert [(path / "x").read_text() for path in asides()] == ["1"]
        else:
            world.run()
    assert Path("out/model/x").read_text() == "3"
    assert asides() == []


@pytest.mark.parametrize(("name", "n_kept"), [("model.safetensors", 1), ("answer.wav", 0)])
def test_earlier_models_of_commands_are_kept_and_small_files_are_not(name: str, n_kept: int, world: World):
    code = f"open('out/{name}', 'w').write({{!r}})"
    for text in ("one", "two"):
        command = ["python", "-c", code.format(text)]
        world.write(steps=[{"name": "one", "command": command, "outputs": [f"out/{name}"]}])
        world.run()
    assert Path("out", name).read_text() == "two"
    assert [path.read_text() for path in asides()] == ["one"] * n_kept


def test_a_file_of_the_user_where_a_step_writes_is_kept(world: World):
    Path("out/asr").mkdir(parents=True)
    Path("out/asr/notes").write_text("mine")
    _, shown = world.run()
    (aside,) = asides()
    assert (aside / "notes").read_text() == "mine"
    assert "was moved to out/.asr.replaced-1" in shown


def test_an_output_on_another_disk_may_be_a_link(world: World, tmp_path: Path):
    (tmp_path / "disk").mkdir()
    Path("out").mkdir()
    Path("out/asr").symlink_to(tmp_path / "disk" / "asr")
    world.run()
    assert (tmp_path / "disk/asr/rate").read_text() == "0.1"
    world.write(learning_rate=0.2)
    world.run()
    assert Path("out/asr").is_symlink()
    assert (tmp_path / "disk/asr/rate").read_text() == "0.2"
    (aside,) = asides("disk")
    assert (aside / "rate").read_text() == "0.1"


def test_a_link_whose_step_writes_nothing_is_a_missing_output(world: World, tmp_path: Path):
    (world.folder / "fake/llamafactory/cli.py").write_text("")
    Path("out").mkdir()
    Path("out/asr").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(PipelineError, match="did not write out/asr"):
        world.run()


def test_a_patch_release_runs_nothing_again_and_is_reported(world: World, monkeypatch: pytest.MonkeyPatch):
    world.run()
    versions = card.versions()
    newer = {**versions, "torch": versions["torch"].rpartition(".")[0] + ".99"}
    monkeypatch.setattr(card, "versions", lambda: newer)
    assert world.intention().reasons == ()
    assert world.intention().notes == (f"made with torch {versions['torch']}, now {newer['torch']}",)
    monkeypatch.setattr(card, "versions", lambda: {**versions, "torch": "99.0"})
    assert world.intention().reasons == ("its versions changed",)


def test_killed_between_its_record_and_the_clean_up_it_cleans_up_later(world: World):
    world.run()
    record = records.read(Path("out"), "asr")
    aside = Path("out/.asr.replaced-1")
    aside.mkdir()
    entry = attempts.Replaced("out/asr", str(aside), "attempt", worth=False)
    attempt = attempts.Attempt("asr", record.fingerprint, dict(record.inputs), (entry,))
    records.write_json(Path("out/.steps/asr.attempt"), {**vars(attempt), "replaced": [vars(entry)]})
    assert world.run()[0][0].skipped
    assert not aside.exists()
    assert not Path("out/.steps/asr.attempt").exists()


def test_the_command_line_reports_what_a_run_would_move(world: World):
    world.run()
    world.write(learning_rate=0.2)
    told = CliRunner().invoke(make_app(), ["run", "--dry-run", "pipeline.yaml"]).output
    assert re.fullmatch(r"asr: run: asr\.yaml changed; moves out/asr aside \(\d\.\d kB\)\n", told)


@pytest.mark.host
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_real_training_that_was_killed_is_the_one_that_was_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    make_model(tmp_path / "llm")
    write_data(tmp_path / "data")
    slm = {"stage": "asr", "units": {"count": UNITS}}
    Path("base.yaml").write_text(yaml.safe_dump(export_config(Path("llm"), Path("out/base"))))
    more = {"max_steps": 20, "save_steps": 10, "save_strategy": "steps", "logging_steps": 1}
    for name in ("whole", "killed"):
        config = train_config(Path("out/base"), Path("data"), Path(f"out/{name}"), slm=slm)
        Path(f"{name}.yaml").write_text(yaml.safe_dump({**config, **more}))
    steps = [{"name": "base", "export": "base.yaml"}, {"name": "whole", "train": "whole.yaml"}]
    steps.append({"name": "killed", "train": "killed.yaml"})
    Path("pipeline.yaml").write_text(yaml.safe_dump({"output": "out", "steps": steps}))
    command = [sys.executable, "-m", "slm_plugin", "run", "pipeline.yaml"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    log = Path("out/killed/trainer_log.jsonl")
    wait_for(lambda: log.exists() and len(log.read_text().splitlines()) >= 12, 300)
    children = descendants(process.pid)
    process.kill()
    process.wait()
    wait_for(lambda: not any(map(is_alive, children)))
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "killed: goes on from out/killed/checkpoint-10" in done.stdout
    losses = {}
    for name in ("whole", "killed"):
        rows = [json.loads(line) for line in Path(f"out/{name}/trainer_log.jsonl").read_text().splitlines()]
        losses[name] = {row["current_steps"]: row["loss"] for row in rows if "loss" in row}
    assert losses["killed"] == losses["whole"]
    weights = [Path(f"out/{name}/adapter_model.safetensors").read_bytes() for name in ("whole", "killed")]
    assert weights[0] == weights[1]
