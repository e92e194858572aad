"""Experts trained by the real host: LoRAs from one parent, merged into it before they are averaged."""

from __future__ import annotations

import pytest
import torch
import yaml
from peft import PeftModel
from transformers import AutoModelForCausalLM
from typer.testing import CliRunner

from host.conftest import data, llm, run_host, units_base  # noqa: F401  # fixtures
from host.world import train_config
from slm_plugin import card
from slm_plugin.cli import make_app

pytestmark = [pytest.mark.host, pytest.mark.timeout(300)]


def test_lora_experts_are_averaged_as_the_full_models_they_mean(units_base, data, tmp_path):
    experts = []
    for stage in ("asr", "tts"):
        path = tmp_path / f"{stage}.yaml"
        path.write_text(yaml.safe_dump(train_config(units_base, data, tmp_path / "unused", stage=stage)))
        experts.append({"name": stage, "train": str(path)})
    content = {"parent": str(units_base), "output": str(tmp_path / "out"), "experts": experts, "warm_host": True}
    (tmp_path / "experts.yaml").write_text(yaml.safe_dump(content))
    result = CliRunner().invoke(make_app(), ["experts", str(tmp_path / "experts.yaml")])
    assert result.exit_code == 0, result.output

    def model(folder, adapter=None):
        loaded = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        return (PeftModel.from_pretrained(loaded, adapter).merge_and_unload() if adapter else loaded).state_dict()

    asr, tts = (model(units_base, tmp_path / "out/round1" / stage) for stage in ("asr", "tts"))
    average = model(tmp_path / "out/round1/average")
    for name, value in average.items():
        torch.testing.assert_close(value, (asr[name] + tts[name]) / 2, rtol=0, atol=2e-7)
    assert any(not torch.equal(asr[name], tts[name]) for name in asr)
    assert card.read(tmp_path / "out/round1/average")["units"]["count"] == 50
