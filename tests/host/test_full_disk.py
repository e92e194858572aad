"""Exports and trainings on a disk that fills up: one line, and nothing half-written."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest
from safetensors import SafetensorError

from host.world import export_config, train_config
from slm_plugin.errors import WeightsError

pytestmark = [pytest.mark.host, pytest.mark.xdist_group("host")]

# what safetensors and tokenizers said on a tmpfs of 400 kB
FULL = "I/O error: No space left on device (os error 28)"


def full_after(n_bytes):
    """Return a stand-in for the function that writes weights, on a disk with room for some bytes."""

    def save(tensors, filename, metadata=None):
        Path(filename).write_bytes(bytes(n_bytes))
        raise SafetensorError(f"Error while serializing: {FULL}")

    return save


def files(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_weights_that_do_not_fit_leave_the_earlier_export_as_it_was(units_base, run_host, tmp_path, monkeypatch):
    run_host(export_config(units_base, tmp_path / "model"))
    before = files(tmp_path)
    monkeypatch.setattr("transformers.modeling_utils.safe_save_file", full_after(1000))
    with pytest.raises(WeightsError) as caught:
        run_host(export_config(units_base, tmp_path / "model"))
    assert str(caught.value) == (
        f"{tmp_path / 'model'} was not written: No space left on device. Nothing was changed."
    )
    assert files(tmp_path) == before


def test_a_tokenizer_that_does_not_fit_leaves_no_model_without_one(units_base, run_host, tmp_path, monkeypatch):
    def save(self, *args, **kwargs):
        # tokenizers raises plain exceptions, which the host turns into a warning
        raise Exception(FULL)

    monkeypatch.setattr("transformers.PreTrainedTokenizerFast.save_pretrained", save)
    with pytest.raises(WeightsError, match=rf"{tmp_path / 'model'} was not written: its tokenizer cannot be read"):
        run_host(export_config(units_base, tmp_path / "model"))
    assert list(tmp_path.iterdir()) == []


def test_other_errors_stay_as_they_are_and_leave_nothing(units_base, run_host, tmp_path, monkeypatch):
    def save(tensors, filename, metadata=None):
        raise RuntimeError("a bug")

    monkeypatch.setattr("transformers.modeling_utils.safe_save_file", save)
    with pytest.raises(RuntimeError, match="a bug"):
        run_host(export_config(units_base, tmp_path / "model"))
    assert list(tmp_path.iterdir()) == []


def test_a_checkpoint_that_does_not_fit_is_not_left_to_resume_from(units_base, data, run_host, tmp_path, monkeypatch):
    import torch

    save = torch.save

    def full(content, path, *args, **kwargs):
        if "checkpoint-4/optimizer.pt" in str(path):
            raise OSError(errno.ENOSPC, "No space left on device")
        save(content, path, *args, **kwargs)

    monkeypatch.setattr(torch, "save", full)
    config = train_config(units_base, data, tmp_path / "out", max_steps=4, save_strategy="steps", save_steps=2)
    with pytest.raises(WeightsError) as caught:
        run_host(config)
    assert str(caught.value) == (
        f"{tmp_path / 'out/checkpoint-4'} was not written: No space left on device. Nothing was changed."
    )
    monkeypatch.setattr(torch, "save", save)
    run_host({**config, "resume_from_checkpoint": str(tmp_path / "out/checkpoint-2")})
    assert (tmp_path / "out/adapter_model.safetensors").is_file()


def test_an_adapter_that_does_not_fit_leaves_the_earlier_one(units_base, data, run_host, tmp_path, monkeypatch):
    run_host(train_config(units_base, data, tmp_path / "out"))
    before = (tmp_path / "out/adapter_model.safetensors").read_bytes()
    monkeypatch.setattr("peft.peft_model.safe_save_file", full_after(1000))
    with pytest.raises(WeightsError, match=f"{tmp_path / 'out'} was not written: No space left on device"):
        run_host(train_config(units_base, data, tmp_path / "out", learning_rate=0.1))
    assert (tmp_path / "out/adapter_model.safetensors").read_bytes() == before


def test_a_file_where_the_export_should_go_is_refused_before_anything_is_loaded(run_host, tmp_path):
    (tmp_path / "model").write_text("a file")
    with pytest.raises(WeightsError, match="model is a file; give a folder"):
        run_host(export_config(tmp_path / "no_such_model", tmp_path / "model"))
