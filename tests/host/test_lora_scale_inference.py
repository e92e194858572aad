"""``slm.lora_scale`` where the host answers or measures without training."""

from __future__ import annotations

import json

import pytest

from adapters.worlds import make_adapter
from host.world import export_config, train_config
from slm_plugin.errors import ConfigError

pytestmark = [pytest.mark.host, pytest.mark.xdist_group("host")]


def eval_loss(run_host, model, data, folder, **changes):
    config = train_config(model, data, folder, do_train=False, do_eval=True, dataset=None, **changes)
    run_host({**config, "eval_dataset": "asr", "per_device_eval_batch_size": 8})
    return json.loads((folder / "all_results.json").read_text())["eval_loss"]


def test_an_evaluation_measures_the_discounted_model(units_base, data, run_host, tmp_path):
    adapter = make_adapter(units_base, tmp_path / "adapter", units=False)
    slm = {"lora_scale": 0.5}
    run_host(export_config(units_base, tmp_path / "exported", adapter=adapter, slm=slm))
    given = {"adapter_name_or_path": str(adapter)}
    exported = eval_loss(run_host, tmp_path / "exported", data, tmp_path / "a", slm={}, finetuning_type="full")
    scaled = eval_loss(run_host, units_base, data, tmp_path / "b", slm=slm, **given)
    whole = eval_loss(run_host, units_base, data, tmp_path / "c", slm={}, **given)
    assert scaled == pytest.approx(exported, rel=1e-5)
    assert abs(scaled - whole) > 1e-3


def test_engines_that_load_adapters_themselves_are_refused(units_base, run_host, tmp_path, monkeypatch):
    from llamafactory.hparams import get_infer_args

    # vLLM is there under another name on machines without a GPU
    monkeypatch.setattr("llamafactory.hparams.parser.check_version", lambda *args, **kwargs: None)
    adapter = make_adapter(units_base, tmp_path / "adapter", units=False)
    config = export_config(units_base, tmp_path, adapter=adapter, slm={"lora_scale": 0.5}, infer_backend="vllm")
    del config["export_dir"], config["export_device"]
    with pytest.raises(ConfigError, match="acts with infer_backend: huggingface, got vllm; export with lora_scale"):
        get_infer_args(config)
