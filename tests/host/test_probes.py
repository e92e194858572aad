"""Skills scored while the real host trains: curves, samples with sound, guards, resuming, two processes."""

from __future__ import annotations

import io
import json
import random
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from safetensors.torch import load_file

from host.test_command_line import host
from host.world import export_config, train_config
from slm_plugin import card
from slm_plugin.errors import DataError, PipelineError
from slm_plugin.host import runtime
from slm_plugin.records import Score
from slm_plugin.report.curves import read_curves
from slm_plugin.strict import Strict
from slm_plugin.vocabulary import units_to_text

pytestmark = [pytest.mark.host, pytest.mark.xdist_group("host")]

SPOKEN = [7, 67, 87, 24]


class Restless:
    """A probe that disturbs all it can: it draws from every generator, leaves modes changed, and counts its calls.

    Its score is 1 at first and falls by .25 with each call, and its answer is spoken.
    """

    class Options(Strict):
        """No options."""

    better = "higher"
    needs_units = True
    calls = 0

    def __init__(self, options):
        self.options = options

    def score(self, skill, generator):
        random.random()
        np.random.random()
        torch.rand(3)
        model = generator._engine._model
        model.train()
        next(iter(model.children())).eval()
        value = 1 - 0.25 * Restless.calls
        Restless.calls += 1
        example = {"prompt": "say it", "expected": "cat", "answer": "cat" + units_to_text(SPOKEN)}
        return Score(skill, value, 4, "higher", examples=[example])


@pytest.fixture(autouse=True)
def restless(monkeypatch):
    monkeypatch.setattr(Restless, "calls", 0)
    factories = runtime.registry().probes._factories
    monkeypatch.setitem(factories, "restless", Restless)


@pytest.fixture(scope="session")
def spoken_base(llm, run_host, tmp_path_factory):
    """A text LLM with the units of the tiny codec."""
    folder = tmp_path_factory.mktemp("bases") / "spoken"
    run_host(export_config(llm, folder, slm={"units": {"codec": "tiny"}}))
    return folder


@pytest.fixture(scope="session")
def questions(tmp_path_factory):
    path = tmp_path_factory.mktemp("probes") / "questions.jsonl"
    rows = [{"input": f"hello {number}", "output": "the blue dog"} for number in range(6)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def watching(questions, **changes):
    """Return a block that scores two real skills and a disturbing one every two steps."""
    skills = [
        {"skill": "text_qa", "probe": "text_match", "options": {"data": str(questions), "max_new_tokens": 4}},
        {"skill": "surprise", "probe": "perplexity", "options": {"data": str(questions)}},
        {"skill": "noise", "probe": "restless"},
    ]
    probes = {"every_steps": 2, "skills": skills, "samples": 2, **changes}
    return {"stage": "tts", "units": {"codec": "tiny"}, "probes": probes}


def config(base, data, output, slm, **changes):
    """Return five steps of the stage tts with dropout, so that training draws random numbers."""
    settings = {"max_steps": 5, "lora_dropout": 0.5, **changes}
    return train_config(base, data, output, stage="tts", slm=slm, **settings) | {"stage": "sft"}


def weights(folder):
    return load_file(folder / "adapter_model.safetensors")


def curve(folder, key):
    history = json.loads((folder / "trainer_state.json").read_text(encoding="utf-8"))["log_history"]
    return {line["step"]: line[key] for line in history if key in line}


def test_training_with_probes_gives_the_same_weights_bit_by_bit(spoken_base, data, questions, run_host, tmp_path):
    run_host(config(spoken_base, data, tmp_path / "with", watching(questions)))
    plain = {key: value for key, value in watching(questions).items() if key != "probes"}
    run_host(config(spoken_base, data, tmp_path / "without", plain))
    one, other = weights(tmp_path / "with"), weights(tmp_path / "without")
    assert all(torch.equal(one[name], other[name]) for name in other)
    assert curve(tmp_path / "with", "loss") == curve(tmp_path / "without", "loss")


def test_curves_are_scored_at_the_start_every_two_steps_and_at_the_end_and_the_report_finds_them(
    spoken_base, data, questions, run_host, tmp_path
):
    run_host(config(spoken_base, data, tmp_path, watching(questions)))
    assert curve(tmp_path, "eval_noise") == {0: 1.0, 2: 0.75, 4: 0.5, 5: 0.25}
    found = {item.name: dict(zip(item.steps, item.values, strict=True)) for item in read_curves(tmp_path)[0]}
    assert found["eval_noise"] == {0: 1.0, 2: 0.75, 4: 0.5, 5: 0.25}
    # what is learned here makes the answers of another task less or more likely, never equally so
    assert len(set(found["eval_surprise"].values())) == 4
    assert set(found["eval_text_qa"]) == {0, 2, 4, 5}
    kept = json.loads((tmp_path / "probes/step-000002.json").read_text(encoding="utf-8"))
    assert [len(kept[skill]["examples"]) for skill in ("text_qa", "noise")] == [2, 1]
    assert kept["surprise"]["value"] == found["eval_surprise"][2]


def test_tensorboard_gets_curves_a_table_and_sound_that_plays(spoken_base, data, questions, run_host, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    changes = {"report_to": "tensorboard", "logging_dir": str(tmp_path / "events")}
    run_host(config(spoken_base, data, tmp_path, watching(questions), **changes))
    (file,) = tmp_path.rglob("events.out.tfevents.*")
    events = EventAccumulator(str(file), size_guidance={"audio": 0, "scalars": 0, "tensors": 0}).Reload()
    assert [(e.step, e.value) for e in events.Scalars("eval/noise")] == [(0, 1.0), (2, 0.75), (4, 0.5), (5, 0.25)]
    assert [e.step for e in events.Scalars("train/loss")] == [1, 2, 3, 4, 5]
    table = events.Tensors("samples/noise/text_summary")[-1].tensor_proto.string_val[0].decode()
    assert table.splitlines() == [
        "| prompt | expected | answer | units |",
        "| --- | --- | --- | --- |",
        "| say it | cat | cat | 7 67 87 24 |",
    ]
    sounds = events.Audio("samples/noise/0")
    assert [sound.step for sound in sounds] == [0, 2, 4, 5]
    codec = runtime.registry().codecs.get("tiny")()
    heard, rate = soundfile.read(io.BytesIO(sounds[0].encoded_audio_string), dtype="float32")
    assert rate == codec.sample_rate_hz
    np.testing.assert_allclose(heard, codec.decode(SPOKEN).clip(-1, 1), atol=2 / 32768)


def test_wandb_offline_keeps_curves_and_a_table_with_sound(
    spoken_base, data, questions, run_host, tmp_path, monkeypatch
):
    wandb = pytest.importorskip("wandb", reason="pip install 'slm-plugin[eval]'")
    for name, value in {"MODE": "offline", "DIR": tmp_path, "DATA_DIR": tmp_path / "staged", "SILENT": "true"}.items():
        monkeypatch.setenv(f"WANDB_{name}", str(value))
    try:
        run_host(config(spoken_base, data, tmp_path / "out", watching(questions), report_to="wandb"))
    finally:
        wandb.finish()
        wandb.teardown()
    (run,) = (tmp_path / "wandb").glob("offline-run-*")
    tables = sorted((run / "files/media/table").glob("samples_*.table.json"), key=lambda path: path.stat().st_mtime)
    assert len(tables) == 4
    content = json.loads(tables[-1].read_text(encoding="utf-8"))
    assert content["columns"] == ["step", "skill", "prompt", "expected", "answer", "units", "audio"]
    rows = [dict(zip(content["columns"], row, strict=True)) for row in content["data"]]
    (row,) = [row for row in rows if row["skill"] == "noise"]
    assert [row[key] for key in ("step", "prompt", "answer", "units")] == [5, "say it", "cat", "7 67 87 24"]
    records = offline_records(next(run.glob("run-*.wandb")))
    history = [{item.key or "/".join(item.nested_key): item.value_json for item in r.history.item} for r in records]
    assert [json.loads(h["eval/noise"]) for h in history if "eval/noise" in h] == [1.0, 0.75, 0.5, 0.25]
    codec = runtime.registry().codecs.get("tiny")()
    spoken = [json.loads(h["samples/noise/audio"]) for h in history if "samples/noise/audio" in h]
    assert [len(sounds) for sounds in spoken] == [1, 1, 1, 1]
    heard, rate = soundfile.read(run / "files" / spoken[-1][0]["path"])
    assert (len(heard), rate) == (len(codec.decode(SPOKEN)), codec.sample_rate_hz)
    # what the table itself plays lies in its artifact
    staged = [entry for record in records for entry in record.artifact.manifest.contents]
    waves = [soundfile.info(entry.local_path).samplerate for entry in staged if entry.path.endswith(".wav")]
    assert waves
    assert set(waves) == {codec.sample_rate_hz}


def offline_records(path: Path) -> list[Any]:
    """Return all records in the file of an offline run: a header of 7 bytes, then a log in LevelDB's format.

    Blocks of 32 KiB hold fragments: checksum (4 bytes), length (2), kind (1: 1 whole, 2 first, 3 middle, 4 last).
    """
    from wandb.proto import wandb_internal_pb2

    content, place, whole, found = path.read_bytes(), 7, b"", []
    while place < len(content):
        left = 32_768 - place % 32_768
        if left < 7:
            place += left
            continue
        length, kind = struct.unpack_from("<HB", content, place + 4)
        whole += content[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):
            found.append(wandb_internal_pb2.Record.FromString(whole))
            whole = b""
    return found


@pytest.mark.filterwarnings("ignore:The `logdir` parameter:DeprecationWarning")  # the host passes it
def test_swanlab_gets_the_samples(spoken_base, data, questions, run_host, tmp_path, monkeypatch):
    swanlab = pytest.importorskip("swanlab", reason="pip install swanlab")
    sent = []
    monkeypatch.setattr(swanlab, "log", lambda content, step=None, **kwargs: sent.append((step, content)))
    changes = {"use_swanlab": True, "swanlab_mode": "disabled", "swanlab_logdir": str(tmp_path / "swan")}
    run_host(config(spoken_base, data, tmp_path / "out", watching(questions), **changes))
    swanlab.finish()
    samples = {step: content for step, content in sent if "samples/noise" in content}
    assert list(samples) == [0, 2, 4, 5]
    assert len(samples[5]["samples/noise/audio"]) == 1


def test_a_skill_that_falls_below_its_floor_stops_training_there(
    spoken_base, data, questions, run_host, tmp_path, slm_log
):
    # 1, .75, .5: at step 4 the floor of .6 is broken
    slm = watching(questions, guard=[{"skill": "noise", "floor": 0.6}])
    run_host(config(spoken_base, data, tmp_path, slm, max_steps=40))
    assert curve(tmp_path, "eval_noise") == {0: 1.0, 2: 0.75, 4: 0.5}
    assert max(curve(tmp_path, "loss")) == 4
    stopped = {"step": 4, "skill": "noise", "value": 0.5, "floor": 0.6}
    assert card.read(tmp_path)["stopped_by_guard"] == [stopped]
    assert "noise has fallen to 0.500, floor 0.6; training stops at step 4" in slm_log()
    assert weights(tmp_path)


def test_a_skill_that_was_never_as_good_as_its_floor_cannot_fall(spoken_base, data, questions, run_host, tmp_path):
    slm = watching(questions, guard=[{"skill": "noise", "floor": 2.0}, {"skill": "text_qa", "floor": 0.9}])
    run_host(config(spoken_base, data, tmp_path, slm))
    assert max(curve(tmp_path, "loss")) == 5
    assert "stopped_by_guard" not in card.read(tmp_path)


def test_a_resumed_run_has_the_curves_and_weights_of_one_that_was_not_stopped(
    spoken_base, data, questions, run_host, tmp_path
):
    changes = {"max_steps": 4, "save_strategy": "steps", "save_steps": 2}
    run_host(config(spoken_base, data, tmp_path / "once", watching(questions), **changes))
    checkpoint = tmp_path / "once/checkpoint-2"
    Restless.calls = 2
    changes["resume_from_checkpoint"] = str(checkpoint)
    run_host(config(spoken_base, data, tmp_path / "resumed", watching(questions), **changes))
    for key in ("eval_noise", "eval_surprise", "eval_text_qa"):
        assert curve(tmp_path / "resumed", key) == curve(tmp_path / "once", key)
        assert set(curve(tmp_path / "resumed", key)) == {0, 2, 4}
    one, other = weights(tmp_path / "once"), weights(tmp_path / "resumed")
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_guard_remembers_what_was_scored_before_the_run_was_stopped(
    spoken_base, data, questions, run_host, tmp_path
):
    changes = {"max_steps": 4, "save_strategy": "steps", "save_steps": 2}
    run_host(config(spoken_base, data, tmp_path / "once", watching(questions), **changes))
    slm = watching(questions, guard=[{"skill": "noise", "floor": 0.9}])
    # 1.0 at step 0 stands in the checkpoint only; .5 at step 4 is scored now
    Restless.calls = 2
    changes |= {"max_steps": 8, "resume_from_checkpoint": str(tmp_path / "once/checkpoint-2")}
    run_host(config(spoken_base, data, tmp_path / "resumed", slm, **changes))
    assert [entry["step"] for entry in card.read(tmp_path / "resumed")["stopped_by_guard"]] == [4]


def test_a_probe_without_its_data_ends_the_run_before_the_first_step(spoken_base, data, run_host, tmp_path):
    with pytest.raises(DataError, match="there is no evaluation file"):
        run_host(config(spoken_base, data, tmp_path, watching(tmp_path / "none.jsonl")))
    assert not (tmp_path / "adapter_model.safetensors").exists()


def test_what_breaks_inside_a_probe_is_said_in_one_line(spoken_base, data, questions, run_host, tmp_path, monkeypatch):
    monkeypatch.setattr(Restless, "score", lambda self, skill, generator: 1 / 0)
    with pytest.raises(PipelineError, match="a probe failed during training: ZeroDivisionError: division by zero"):
        run_host(config(spoken_base, data, tmp_path, watching(questions)))


def real_skills(questions, **changes):
    """Return a block for child processes, which know only the registered probes."""
    slm = watching(questions, **changes)
    slm["probes"]["skills"] = slm["probes"]["skills"][:2]
    return slm


@pytest.mark.slow
def test_two_processes_share_the_scoring_and_train_as_without_it(spoken_base, data, questions, tmp_path):
    two = {"FORCE_TORCHRUN": "1", "NPROC_PER_NODE": "2"}
    slm = real_skills(questions)
    for name, block in {"with": slm, "without": {**slm, "probes": None}}.items():
        block = {key: value for key, value in block.items() if value is not None}
        settings = config(spoken_base, data, tmp_path / name, block, per_device_train_batch_size=2)
        done = host("train", settings, tmp_path, **two)
        assert done.returncode == 0, done.stderr[-3000:]
    one, other = weights(tmp_path / "with"), weights(tmp_path / "without")
    assert all(torch.equal(one[name], other[name]) for name in other)
    for key in ("eval_text_qa", "eval_surprise"):
        assert set(curve(tmp_path / "with", key)) == {0, 2, 4, 5}


@pytest.mark.slow
def test_an_error_on_one_of_two_processes_ends_both(spoken_base, data, questions, tmp_path):
    slm = real_skills(questions)
    # the second skill is the second process's
    slm["probes"]["skills"][1]["options"]["data"] = str(tmp_path / "none.jsonl")
    settings = config(spoken_base, data, tmp_path / "out", slm, per_device_train_batch_size=2)
    done = host("train", settings, tmp_path, FORCE_TORCHRUN="1", NPROC_PER_NODE="2")
    assert done.returncode != 0
    assert "there is no evaluation file" in done.stderr
