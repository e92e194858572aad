"""Ratio schedules through the host: counts, neutrality, the order on several processes, resuming."""

from __future__ import annotations

import json

import pytest

from host.test_command_line import host
from host.test_replay import block
from host.world import epochs, same, train_config, weights
from slm_plugin import card
from slm_plugin.errors import ConfigError

pytestmark = [pytest.mark.host, pytest.mark.xdist_group("host")]
FALLING = {"shape": "linear", "start": 1.0, "end": 0.0}


@pytest.mark.parametrize(
    "schedule",
    [
        None,
        {"shape": "constant"},
        {"shape": "linear", "start": 1.0, "end": 1.0},
        {"shape": "constant", "start": 1.0, "end": 0.5},
    ],
    ids=["absent", "constant", "linear from 1 to 1", "constant with an end"],
)
def test_a_factor_of_one_trains_bit_for_bit_as_without_a_schedule(schedule, units_base, data, run_host, tmp_path):
    run_host(train_config(units_base, data, tmp_path / "plain", stage="tts", slm=block({"llm": 0.25})))
    slm = block({"llm": 0.25}, schedule=schedule)
    run_host(train_config(units_base, data, tmp_path / "scheduled", stage="tts", slm=slm))
    assert same(weights(tmp_path / "plain"), weights(tmp_path / "scheduled"))


def test_a_factor_of_zero_trains_bit_for_bit_as_without_replay(units_base, data, run_host, tmp_path):
    slm = block({"llm": 0.25}, schedule={"shape": "linear", "start": 0.0, "end": 0.0})
    run_host(train_config(units_base, data, tmp_path / "none", stage="tts", slm=slm))
    run_host(train_config(units_base, data, tmp_path / "plain", stage="tts"))
    assert same(weights(tmp_path / "none"), weights(tmp_path / "plain"))


def test_replay_fades_out_over_the_whole_training_and_the_card_says_how_much(
    units_base, data, run_host, tmp_path, seen_rows
):
    slm = block({"llm": 1.0}, stage="asr", schedule={"shape": "step", "start": 1.0, "end": 0.0, "at": 0.25})
    run_host(train_config(units_base, data, tmp_path / "asr", stage="asr", slm=slm, **epochs(2)))
    # 40 current + 40 replayed rows an epoch: the first quarter of 160 positions is shared evenly, the rest is not
    assert len(seen_rows) == 160
    assert card.read(tmp_path / "asr")["replay_scheduled"] == {"llm": 20}
    # 10 chats twice each; 140 / 40 = 3.5 passes over the current rows
    counts = sorted(seen_rows.count(row) for row in set(seen_rows))
    assert counts == [2] * 10 + [3] * 20 + [4] * 20
    assert min(seen_rows.count(row) for row in seen_rows[40:]) == 3


def test_a_run_of_max_steps_is_scheduled_over_its_steps(units_base, data, run_host, tmp_path, seen_rows):
    slm = block({"llm": 1.0}, stage="asr", schedule=FALLING)
    config = train_config(units_base, data, tmp_path / "asr", stage="asr", slm=slm, max_steps=4)
    run_host({**config, "gradient_accumulation_steps": 2})
    # 32 positions: sum of (1 - t) / (2 - t) for t = 0, 1/32, ... = 9.95
    assert len(seen_rows) == 32
    assert card.read(tmp_path / "asr")["replay_scheduled"]["llm"] in (9, 10)


@pytest.mark.parametrize("resample", ["once", "epoch"])
def test_a_resumed_run_goes_on_as_one_that_never_stopped(resample, units_base, data, run_host, tmp_path, seen_rows):
    slm = block({"llm": 0.5}, stage="asr", schedule=FALLING, resample=resample)
    config = train_config(units_base, data, tmp_path / "whole", stage="asr", slm=slm, **epochs(2))
    config |= {"save_strategy": "steps", "save_steps": 20}
    run_host(config)
    whole = list(seen_rows)
    seen_rows.clear()
    # 60 rows an epoch in 15 steps: step 20 is in the middle of the second epoch
    checkpoint = str(tmp_path / "whole" / "checkpoint-20")
    run_host({**config, "output_dir": str(tmp_path / "resumed"), "resume_from_checkpoint": checkpoint})
    assert seen_rows == whole[80:]
    assert same(weights(tmp_path / "whole"), weights(tmp_path / "resumed"))


@pytest.mark.slow
def test_two_processes_with_half_the_batch_visit_the_same_rows(units_base, data, run_host, tmp_path):
    slm = block({"llm": 0.5}, stage="asr", schedule=FALLING, resample="epoch")
    config = train_config(units_base, data, tmp_path / "one", stage="asr", slm=slm, max_steps=6, learning_rate=1e-3)
    # the same rows in every step give the same losses but for rounding
    run_host(config)
    two = {**config, "output_dir": str(tmp_path / "two"), "per_device_train_batch_size": 2}
    done = host("train", {**two, "dataloader_num_workers": 1}, tmp_path, FORCE_TORCHRUN="1", NPROC_PER_NODE="2")
    assert done.returncode == 0, done.stderr[-3000:]
    facts = [card.read(tmp_path / name)["replay_scheduled"] for name in ("one", "two")]
    assert facts[0] == facts[1]
    losses = [
        [json.loads(line).get("loss") for line in (tmp_path / name / "trainer_log.jsonl").read_text().splitlines()]
        for name in ("one", "two")
    ]
    assert losses[0][:6] == pytest.approx(losses[1][:6], abs=2e-4)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"streaming": True, "max_steps": 3}, "replay with schedule needs rows that can be counted"),
        ({"train_sampling_strategy": "group_by_length"}, "replay with schedule sets the order of rows"),
    ],
)
def test_what_cannot_be_scheduled_is_refused(changes, words, units_base, data, run_host, tmp_path):
    slm = block({"llm": 0.5}, stage="asr", schedule=FALLING)
    with pytest.raises(ConfigError, match=words):
        run_host(train_config(units_base, data, tmp_path / "x", stage="asr", slm=slm, **changes))


def test_a_wrong_shape_is_refused_with_the_nearest_name(units_base, data, run_host, tmp_path):
    slm = block({"llm": 0.5}, schedule={"shape": "cosin"})
    with pytest.raises(ConfigError, match="Did you mean 'cosine'"):
        run_host(train_config(units_base, data, tmp_path / "x", slm=slm))
