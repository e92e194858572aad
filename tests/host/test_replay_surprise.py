"""Rows chosen by their loss, through the host: which, when, on several processes, and after resuming."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from contracts.conftest import on_two_processes  # noqa: F401  # fixtures
from host.test_command_line import host
from host.test_replay import block
from host.world import epochs, same, train_config, under_zero, weights
from slm_plugin.errors import ConfigError, DataError
from slm_plugin.host import surprise

pytestmark = [pytest.mark.host, pytest.mark.xdist_group("host")]


@pytest.fixture
def scored(monkeypatch):
    """Record the rows that were scored, their losses, and the states that scoring must leave alone."""
    found = []
    stock = surprise.row_losses

    def row_losses(trainer, rows):
        def state():
            modes = [module.training for module in trainer.model.modules()]
            grads = [parameter.grad is None for parameter in trainer.model.parameters()]
            return torch.get_rng_state().tolist(), np.random.get_state()[1].tolist(), modes, grads

        before = state()
        losses = stock(trainer, rows)
        assert state() == before
        found.append((rows, losses))
        return losses

    monkeypatch.setattr(surprise, "row_losses", row_losses)
    return found


def test_the_loss_of_a_row_is_the_mean_over_its_answer(units_base, data, run_host, tmp_path, scored):
    slm = block({"asr": 0.5}, stage="llm", pick="surprise", candidates=4)
    run_host(train_config(units_base, data, tmp_path / "llm", stage="llm", slm=slm))
    # 10 current rows, 5 to draw, 20 candidates; new adapters change nothing, so the base scores the same
    ((rows, losses),) = scored
    assert len(rows) == 20
    model = AutoModelForCausalLM.from_pretrained(units_base)
    for row, loss in zip(rows, losses, strict=True):
        with torch.no_grad():
            expected = model(input_ids=torch.tensor([row["input_ids"]]), labels=torch.tensor([row["labels"]])).loss
        assert loss == pytest.approx(float(expected), abs=1e-5)


def test_temperature_zero_replays_the_candidates_with_the_largest_losses(
    units_base, data, run_host, tmp_path, scored, seen_rows, slm_log
):
    slm = block({"asr": 0.5}, stage="llm", pick="surprise", temperature=0.0)
    run_host(train_config(units_base, data, tmp_path / "llm", stage="llm", slm=slm, **epochs(2)))
    ((rows, losses),) = scored
    hardest = {tuple(rows[k]["input_ids"]) for k in np.argsort(-losses)[:5]}
    assert len(seen_rows) == 30
    assert {row for row in seen_rows if seen_rows.count(row) == 2 and row in hardest} == hardest
    assert len(set(seen_rows)) == 15
    kept, mean = np.sort(losses)[-5:].mean(), losses.mean()
    expected = f"replay by surprise, epoch 0: asr 5 of 20 candidates, mean loss {kept:.3f} of {mean:.3f}"
    assert expected in slm_log()


def test_resampling_scores_anew_under_the_trained_model_each_epoch(
    units_base, data, run_host, tmp_path, scored, seen_rows
):
    slm = block({"asr": 0.5}, stage="llm", pick="surprise", resample="epoch", candidates=8)
    run_host(train_config(units_base, data, tmp_path / "llm", stage="llm", slm=slm, **epochs(3)))
    assert len(scored) == 3
    first, last = (
        dict(zip((tuple(r["input_ids"]) for r in rows), losses, strict=True)) for rows, losses in scored[::2]
    )
    # 8 x 5 candidates are the whole source of 40
    assert first.keys() == last.keys()
    assert all(first[row] != last[row] for row in first)


def test_uniform_trains_bit_for_bit_as_before_and_scores_nothing(units_base, data, run_host, tmp_path, scored):
    run_host(train_config(units_base, data, tmp_path / "plain", stage="tts", slm=block({"llm": 0.1})))
    slm = block({"llm": 0.1}, pick="uniform", candidates=7, temperature=0.0)
    run_host(train_config(units_base, data, tmp_path / "uniform", stage="tts", slm=slm))
    assert same(weights(tmp_path / "plain"), weights(tmp_path / "uniform"))
    assert scored == []


def test_scoring_leaves_training_as_it_was(units_base, data, run_host, tmp_path, monkeypatch):
    """With dropout on: the same rows chosen without any scoring give the same weights."""
    slm = block({"asr": 0.5}, stage="llm", pick="surprise")
    config = train_config(units_base, data, tmp_path / "scored", stage="llm", slm=slm, lora_dropout=0.2)
    losses = []
    stock = surprise.row_losses
    monkeypatch.setattr(surprise, "row_losses", lambda *args: losses.append(stock(*args)) or losses[-1])
    run_host(config)
    monkeypatch.setattr(surprise, "row_losses", lambda *args: losses[0])
    run_host({**config, "output_dir": str(tmp_path / "told")})
    assert same(weights(tmp_path / "scored"), weights(tmp_path / "told"))


@pytest.mark.parametrize("options", [{}, {"resample": "epoch"}], ids=["once", "epoch"])
@pytest.mark.parametrize("schedule", [None, {"shape": "cosine", "start": 1.0, "end": 0.2}], ids=["plain", "scheduled"])
def test_a_resumed_run_goes_on_with_the_rows_it_had(
    options, schedule, units_base, data, run_host, tmp_path, seen_rows
):
    slm = block({"asr": 0.5}, stage="llm", pick="surprise", schedule=schedule, **options)
    config = train_config(units_base, data, tmp_path / "whole", stage="llm", slm=slm, **epochs(3))
    # 15 rows an epoch in 4 steps: step 6 is inside the second
    run_host({**config, "save_strategy": "steps", "save_steps": 6})
    whole = list(seen_rows)
    seen_rows.clear()
    checkpoint = str(tmp_path / "whole" / "checkpoint-6")
    run_host({**config, "output_dir": str(tmp_path / "resumed"), "resume_from_checkpoint": checkpoint})
    assert seen_rows == whole[15 + 8 :]
    assert same(weights(tmp_path / "whole"), weights(tmp_path / "resumed"))


def test_a_checkpoint_of_other_ratios_is_refused(units_base, data, run_host, tmp_path):
    slm = block({"asr": 0.5}, stage="llm", pick="surprise")
    config = train_config(units_base, data, tmp_path / "run", stage="llm", slm=slm)
    run_host({**config, "save_strategy": "steps", "save_steps": 2})
    checkpoint = tmp_path / "run" / "checkpoint-2"
    resumed = {**config, "output_dir": str(tmp_path / "on"), "resume_from_checkpoint": str(checkpoint)}
    with pytest.raises(DataError, match="has 5 rows of 'asr', this run draws 8"):
        run_host({**resumed, "slm": block({"asr": 0.8}, stage="llm", pick="surprise")})
    (checkpoint / surprise.FILE_NAME).unlink()
    with pytest.raises(DataError, match="resumes only from checkpoints of such a run"):
        run_host(resumed)


@pytest.mark.slow
def test_two_processes_choose_the_rows_that_one_chooses(units_base, data, run_host, tmp_path):
    slm = block({"asr": 0.5, "sqa": 0.2}, stage="llm", pick="surprise", temperature=0.3)
    config = train_config(units_base, data, tmp_path / "one", stage="llm", slm=slm)
    config |= {"save_strategy": "steps", "save_steps": 2, "per_device_train_batch_size": 2}
    run_host(config)
    two = {**config, "output_dir": str(tmp_path / "two")}
    done = host("train", two, tmp_path, FORCE_TORCHRUN="1", NPROC_PER_NODE="2")
    assert done.returncode == 0, done.stderr[-3000:]
    saved = [json.loads((tmp_path / n / "checkpoint-2" / surprise.FILE_NAME).read_text()) for n in ("one", "two")]
    assert saved[0] == saved[1]


def test_a_stream_cannot_be_ranked(units_base, data, run_host, tmp_path):
    slm = block({"asr": 0.5}, stage="llm", pick="surprise")
    with pytest.raises(ConfigError, match="replay with pick: surprise needs rows that can be counted"):
        run_host(train_config(units_base, data, tmp_path / "x", stage="llm", slm=slm, streaming=True))


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("zero", [2, 3])
def test_sharded_weights_are_scored_as_whole_ones(zero, units_base, data, run_host, on_two_processes, tmp_path):
    slm = block({"asr": 0.5}, stage="llm", pick="surprise", temperature=0.3)
    config = train_config(units_base, data, tmp_path / "plain", stage="llm", slm=slm)
    config |= {"save_strategy": "steps", "save_steps": 2, "per_device_train_batch_size": 2}
    zeroed = under_zero(zero, {**config, "output_dir": str(tmp_path / "z")}, tmp_path)
    run_host(config)
    on_two_processes([zeroed], timeout=900)
    saved = [json.loads((tmp_path / n / "checkpoint-2" / surprise.FILE_NAME).read_text()) for n in ("plain", "z")]
    assert saved[0] == saved[1]
