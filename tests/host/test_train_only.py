"""Training parts of a model only, through the real host."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file

from host.world import UNITS, train_config
from slm_plugin.errors import ConfigError

pytestmark = [pytest.mark.host, pytest.mark.xdist_group("host")]


def config(base, data, output, parts, **changes):
    slm = {"stage": "tts", "units": {"count": UNITS}, "mitigations": [{"train_only": {"parts": parts}}]}
    return train_config(base, data, output, stage="tts", slm=slm, **changes) | {"stage": "sft"}


@pytest.mark.parametrize(
    ("parts", "moved"),
    [
        (["embeddings"], {"embed_tokens", "lm_head"}),
        (["attention"], {"q_proj", "k_proj", "v_proj", "o_proj"}),
        (["embeddings", "attention"], {"embed_tokens", "lm_head", "q_proj", "k_proj", "v_proj", "o_proj"}),
    ],
    ids=("embeddings", "attention", "both"),
)
def test_full_training_moves_the_named_parts_and_nothing_else(parts, moved, units_base, data, run_host, tmp_path):
    run_host(config(units_base, data, tmp_path, parts, finetuning_type="full"))
    before, after = load_file(units_base / "model.safetensors"), load_file(tmp_path / "model.safetensors")
    changed = {name.split(".")[-2] for name in before if not torch.equal(before[name], after[name])}
    assert changed == moved


def test_an_adapter_moves_in_the_named_parts_and_nothing_else(units_base, data, run_host, tmp_path):
    run_host(config(units_base, data, tmp_path, ["attention"], lora_target="q_proj,down_proj"))
    base = load_file(units_base / "model.safetensors")
    trained = load_file(tmp_path / "adapter_model.safetensors")
    grown = {name.split(".")[-3] for name, w in trained.items() if "lora_B" in name and w.abs().max() > 0}
    assert grown == {"q_proj"}
    assert torch.equal(trained["base_model.model.lm_head.weight"], base["lm_head.weight"])


def test_a_run_that_would_train_nothing_is_refused(units_base, data, run_host, tmp_path):
    with pytest.raises(ConfigError, match=r"only attention, embeddings: nothing is left to train"):
        run_host(config(units_base, data, tmp_path, ["feed_forward"]))
