"""Replay through the host: counts, neutrality, epochs, streams, two processes, and errors before training starts."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file

from host.test_command_line import host
from host.world import UNITS, train_config
from slm_plugin import card
from slm_plugin.errors import ConfigError, DataError

pytestmark = [pytest.mark.host, pytest.mark.xdist_group("host")]


def block(sources, stage="tts", **options):
    return {
        "stage": stage,
        "units": {"count": UNITS},
        "mitigations": [{"replay": {"sources": sources, **options}}],
    }


def test_rows_are_the_floor_of_ratio_times_current_and_stand_beside_the_adapter(
    units_base, data, run_host, tmp_path, slm_log
):
    # 40 rows of tts: floor(.05 * 40) = 2, floor(.24 * 40) = 9, floor(.5 * 40) = 20 of the 10 there are
    slm = block({"asr": 0.05, "sqa": 0.24, "llm": 0.5})
    run_host(train_config(units_base, data, tmp_path / "tts", stage="tts", slm=slm))
    assert card.read(tmp_path / "tts")["replay"] == {"asr": 2, "sqa": 9, "llm": 20}
    expected = "replay: 40 rows of the current stage + asr 2 of 40 (once), sqa 9 of 20 (once), llm 20 of 10 (once)"
    assert expected in slm_log()


def test_ratio_zero_trains_bit_for_bit_as_without_replay(units_base, data, run_host, tmp_path):
    run_host(train_config(units_base, data, tmp_path / "with", stage="tts", slm=block({"asr": 0.0})))
    run_host(train_config(units_base, data, tmp_path / "without", stage="tts"))
    one, other = (load_file(tmp_path / name / "adapter_model.safetensors") for name in ("with", "without"))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_training_sees_each_current_row_once_and_replayed_rows_besides(
    units_base, data, run_host, tmp_path, seen_rows
):
    slm = block({"llm": 0.25})
    config = train_config(units_base, data, tmp_path / "tts", stage="tts", slm=slm, max_steps=-1, num_train_epochs=1.0)
    run_host(config)
    # 40 current rows + floor(.25 * 40) = 10 replayed ones, which are all 10 of the source, each once
    assert len(seen_rows) == 50
    assert len(set(seen_rows)) == 50


def test_epoch_resampling_shows_unseen_rows_first(units_base, data, run_host, tmp_path, seen_rows):
    slm = block({"asr": 0.5}, stage="llm", resample="epoch")
    config = train_config(units_base, data, tmp_path / "llm", stage="llm", slm=slm, max_steps=-1, num_train_epochs=4.0)
    run_host(config)
    # 10 current rows + 5 of 40 in each of 4 epochs: 20 different ones of the source
    assert len(seen_rows) == 60
    replayed = [row for row in seen_rows if seen_rows.count(row) == 1]
    assert len(replayed) == 20


def test_drawing_once_repeats_the_same_rows_in_every_epoch(units_base, data, run_host, tmp_path, seen_rows):
    slm = block({"asr": 0.5}, stage="llm")
    config = train_config(units_base, data, tmp_path / "llm", stage="llm", slm=slm, max_steps=-1, num_train_epochs=4.0)
    run_host(config)
    assert len(set(seen_rows)) == 15
    assert all(seen_rows.count(row) == 4 for row in seen_rows)


def test_a_streamed_stage_draws_by_probability(units_base, data, run_host, tmp_path, seen_rows):
    slm = block({"asr": 0.5}, stage="llm")
    config = train_config(
        units_base,
        data,
        tmp_path / "llm",
        stage="llm",
        slm=slm,
        streaming=True,
        max_steps=3,
        # the host cuts a streamed file into as many shards as there are workers
        dataloader_num_workers=1,
        buffer_size=4,
    )
    run_host(config)
    # .5 / (1 + .5)
    assert card.read(tmp_path / "llm")["replay_probability"] == {"asr": pytest.approx(1 / 3)}
    assert len(seen_rows) == 12


def test_two_torchrun_processes_replay_the_rows_that_one_replays(units_base, data, run_host, tmp_path):
    # two processes with batches of 2 see the same 4 rows per step as one process with a batch of 4
    slm = block({"llm": 0.5, "asr": 0.25}, resample="epoch")
    both = {"slm": slm, "stage": "tts", "max_steps": 4}
    config = train_config(units_base, data, tmp_path / "two", **both, per_device_train_batch_size=2)
    config |= {"stage": "sft", "disable_shuffling": True}
    done = host("train", config, tmp_path, FORCE_TORCHRUN="1", NPROC_PER_NODE="2")
    assert done.returncode == 0, done.stderr[-3000:]
    run_host({**config, "output_dir": str(tmp_path / "one"), "per_device_train_batch_size": 4})
    one, two = (load_file(tmp_path / name / "adapter_model.safetensors") for name in ("one", "two"))
    assert one.keys() == two.keys()
    # the mean over two processes is taken in another order than over one batch
    assert max((one[name] - two[name]).abs().max().item() for name in one) < 2e-3
    assert card.read(tmp_path / "two")["replay"] == card.read(tmp_path / "one")["replay"] == {"llm": 20, "asr": 10}
    assert done.stderr.count("replay: 40 rows of the current stage") == 1


def test_a_missing_data_set_folder_is_named(units_base, data, run_host, tmp_path):
    config = train_config(units_base, data, tmp_path / "x", stage="tts", slm=block({"llm": 0.1}))
    with pytest.raises(DataError, match=r"nowhere/dataset_info.json cannot be read .*set dataset_dir"):
        run_host({**config, "dataset_dir": "nowhere"})


def test_a_missing_source_is_refused_with_the_nearest_name(units_base, data, run_host, tmp_path):
    with pytest.raises(ConfigError, match=r"the source 'asrr' is not in .*dataset_info.json. Did you mean 'asr'"):
        run_host(train_config(units_base, data, tmp_path / "x", stage="tts", slm=block({"asrr": 0.1})))


def test_an_empty_source_is_refused_before_training(units_base, data, run_host, tmp_path):
    with pytest.raises(DataError, match="'empty' has no usable row"):
        run_host(train_config(units_base, data, tmp_path / "x", stage="tts", slm=block({"empty": 0.1})))
    assert not (tmp_path / "x" / "adapter_model.safetensors").exists()


def test_a_source_tokenised_for_another_vocabulary_is_refused(units_base, llm, data, run_host, tmp_path):
    saved = {"tokenized_path": str(tmp_path / "tokens")}
    run_host(train_config(units_base, data, tmp_path / "a", stage="tts", slm=block({"llm": 0.1}), **saved))
    assert json.loads((tmp_path / "tokens-replay-llm" / "slm_vocabulary.json").read_text())["units"] == UNITS
    # the same folders serve a second run with another ratio: mixing comes after tokenising
    run_host(train_config(units_base, data, tmp_path / "b", stage="tts", slm=block({"llm": 0.2}), **saved))
    assert card.read(tmp_path / "b")["replay"] == {"llm": 8}
    other = {"stage": "tts", "units": {"count": UNITS + 5}}
    with pytest.raises(DataError, match="tokenised for another vocabulary"):
        run_host(train_config(llm, data, tmp_path / "c", stage="tts", slm=other, **saved))


def test_replayed_rows_over_the_limit_are_dropped_and_counted(units_base, data, run_host, tmp_path, slm_log):
    slm = {"stage": "llm", "units": {"count": UNITS}, "mitigations": [{"replay": {"sources": {"sqa": 1.0}}}]}
    # rows of the source have 38 to 50 tokens
    run_host(train_config(units_base, data, tmp_path / "llm", stage="llm", cutoff_len=42, slm=slm))
    assert "llm: 10 of 10 rows" in slm_log()
    assert "sqa: 9 of 20 rows, 11 longer than cutoff_len 42 and dropped" in slm_log()
    assert "warning: 55% of the rows of sqa are longer than cutoff_len 42; the longest has 50 tokens" in slm_log()
