"""Models and adapters that do not fit, are not whole or not finite: one line, and nothing is written."""

from __future__ import annotations

import shutil

import pytest
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from adapters.worlds import make_adapter
from host.world import export_config, train_config
from slm_plugin import card
from slm_plugin.errors import ConfigError, WeightsError
from tiny_models import make_model

pytestmark = [pytest.mark.host, pytest.mark.xdist_group("host")]


def without_card(folder):
    """Adapters that PEFT alone wrote say nothing about their base."""
    (folder / card.FILE_NAME).unlink()
    return folder


def refused(run_host, config, error=WeightsError):
    with pytest.raises(error) as caught:
        run_host(config)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("scale", [{}, {"lora_scale": 0.5}], ids=["plain", "scaled"])
def test_an_adapter_of_another_width_is_refused_by_its_shapes(scale, units_base, run_host, tmp_path):
    adapter = without_card(make_adapter(make_model(tmp_path / "wide", hidden=128), tmp_path / "adapter"))
    text = refused(run_host, export_config(units_base, tmp_path / "model", adapter=adapter, slm=scale))
    assert text == (
        f"the adapter {adapter} needs 'model.layers.0.mlp.down_proj.weight' of shape (128, 256),"
        " the base has (64, 128)."
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["adapter", "wide"]


def test_an_adapter_of_another_vocabulary_is_refused_in_training_too(llm, units_base, data, run_host, tmp_path):
    adapter = without_card(make_adapter(llm, tmp_path / "adapter", modules_to_save=["embed_tokens", "lm_head"]))
    config = train_config(units_base, data, tmp_path / "out", adapter_name_or_path=str(adapter))
    text = refused(run_host, config)
    assert f"the adapter {adapter} has 'lm_head.weight' of shape" in text
    assert text.endswith("give the base with units that it was trained on.")
    assert not (tmp_path / "out/adapter_model.safetensors").exists()


def test_a_missing_or_cut_off_shard_is_named_before_anything_is_loaded(units_base, run_host, tmp_path):
    shutil.copytree(units_base, tmp_path / "base")
    (tmp_path / "base/model.safetensors").unlink()
    AutoModelForCausalLM.from_pretrained(units_base).save_pretrained(tmp_path / "base", max_shard_size="200KB")
    shards = sorted((tmp_path / "base").glob("model-*.safetensors"))
    config = export_config(tmp_path / "base", tmp_path / "model")
    shards[1].write_bytes(shards[1].read_bytes()[:-100])
    assert f"model_name_or_path: {shards[1]} is damaged" in refused(run_host, config, ConfigError)
    shards[1].unlink()
    text = refused(run_host, config, ConfigError)
    assert f"model_name_or_path: {tmp_path / 'base'} lacks 1 shard(s) of its index: {shards[1].name}." in text
    assert [path.name for path in tmp_path.iterdir()] == ["base"]


def test_a_base_that_diverged_is_not_exported(units_base, run_host, tmp_path):
    shutil.copytree(units_base, tmp_path / "base")
    tensors = load_file(tmp_path / "base/model.safetensors")
    tensors["model.norm.weight"][3] = float("nan")
    save_file(tensors, tmp_path / "base/model.safetensors", metadata={"format": "pt"})
    text = refused(run_host, export_config(tmp_path / "base", tmp_path / "model"))
    assert text.startswith(f"{tmp_path / 'model'} was not written: 1 value(s) of the tensor 'model.norm.weight'")
    assert [path.name for path in tmp_path.iterdir()] == ["base"]


def test_a_full_temporary_folder_is_one_line(units_base, run_host, tmp_path, monkeypatch):
    adapter = make_adapter(units_base, tmp_path / "adapter", units=False, use_dora=True)

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("slm_plugin.adapters.discount.save_file", full)
    config = export_config(units_base, tmp_path / "model", adapter=adapter, slm={"lora_scale": 0.5})
    assert f"the discounted copy of {adapter} cannot be written to" in refused(run_host, config)
    assert [path.name for path in tmp_path.iterdir()] == ["adapter"]


def test_unit_rows_stay_as_trained_without_a_card_too(units_base, run_host, tmp_path):
    adapter = make_adapter(units_base, tmp_path / "adapter", modules_to_save=["embed_tokens", "lm_head"])
    without_card(adapter)
    slm = {"lora_scale": 0.25, "scaled_modules": "interpolate"}
    run_host(export_config(units_base, tmp_path / "model", adapter=adapter, slm=slm))
    units = card.read(units_base)["units"]
    rows = slice(units["first_id"], units["first_id"] + units["count"])
    name = "model.embed_tokens.weight"
    trained = load_file(adapter / "adapter_model.safetensors")[f"base_model.model.{name}"]
    exported, base = (load_file(folder / "model.safetensors")[name] for folder in (tmp_path / "model", units_base))
    assert exported[rows].equal(trained[rows])
    # 3/4 of the base and 1/4 of what was trained
    expected = 0.75 * base[: rows.start] + 0.25 * trained[: rows.start]
    assert exported[: rows.start].allclose(expected, atol=1e-6)
