"""Experts of any kind of model that transformers loads: causal language models, Whisper, CTC recognisers."""

from __future__ import annotations

import warnings

import pytest
import torch
import transformers
import yaml
from peft import LoraConfig, PeftModel, get_peft_model
from typer.testing import CliRunner

from merge.test_checkpoints import tiny_ctc, tiny_whisper
from slm_plugin.cli import make_app
from tiny_models import make_model

KINDS = {
    "LlamaForCausalLM": lambda folder, seed: make_model(folder, seed=seed),
    "WhisperForConditionalGeneration": tiny_whisper,
    "Wav2Vec2ForCTC": tiny_ctc,
}


def make_lora(kind, parent, folder):
    """Write an adapter of random numbers; return the weights of the model that it makes of its parent."""
    load = getattr(transformers, kind).from_pretrained
    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
        warnings.simplefilter("ignore")
        torch.manual_seed(9)
        model = get_peft_model(load(parent), LoraConfig(r=2, lora_alpha=4, target_modules=["q_proj", "v_proj"]))
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.data += 0.3 * torch.randn_like(parameter)
        model.save_pretrained(folder)
        return PeftModel.from_pretrained(load(parent), folder).merge_and_unload().state_dict()


@pytest.mark.parametrize("kind", KINDS)
def test_four_experts_one_of_them_lora_and_their_parent_are_averaged(kind, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    load = getattr(transformers, kind).from_pretrained
    for seed, name in enumerate(("parent", "a", "b", "c")):
        KINDS[kind](tmp_path / name, seed)
    lora = make_lora(kind, "parent", tmp_path / "d")
    experts = [{"name": f"expert_{name}", "model": name, "weight": 4 if name == "a" else 1} for name in "abcd"]
    content = {"parent": "parent", "output": "out", "parent_weight": 1, "experts": experts}
    (tmp_path / "experts.yaml").write_text(yaml.safe_dump(content))
    result = CliRunner().invoke(make_app(), ["experts", "experts.yaml"])
    assert result.exit_code == 0, result.output
    average = load("out/round1/average").state_dict()
    parts = {name: load(name).state_dict() for name in ("parent", "a", "b", "c")} | {"d": lora}
    for name, tensor in average.items():
        # 4 : 1 : 1 : 1 : 1, so the favoured one of the five is half of the average
        rest = sum(parts[other][name].double() for other in ("b", "c", "d", "parent")) / 4
        torch.testing.assert_close(
            tensor.double(), (parts["a"][name].double() + rest) / 2, rtol=1e-5, atol=1e-6, msg=name
        )
