"""Experts from one parent, averaged round after round, over any transformers checkpoint."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file
from transformers import WhisperConfig, WhisperForConditionalGeneration
from typer.testing import CliRunner

from slm_plugin.cli import make_app
from slm_plugin.errors import ConfigError
from slm_plugin.experts import plan as experts_plan
from slm_plugin.experts.rounds import write_pipeline

# any program is a trainer: this one knows neither torch nor the model's class
TRAINER = """
import shutil, sys
import numpy
from safetensors.numpy import load_file, save_file
parent, output, seed = sys.argv[1:]
shutil.copytree(parent, output)
weights, noise = load_file(f"{parent}/model.safetensors"), numpy.random.default_rng(int(seed))
changed = {name: (w + 0.01 * noise.standard_normal(w.shape)).astype(w.dtype) for name, w in sorted(weights.items())}
save_file(changed, f"{output}/model.safetensors", {"format": "pt"})
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def whisper(folder):
    config = WhisperConfig(
        vocab_size=60,
        num_mel_bins=8,
        d_model=16,
        encoder_layers=1,
        decoder_layers=1,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=16,
        decoder_ffn_dim=16,
        max_source_positions=20,
        max_target_positions=20,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        decoder_start_token_id=1,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        WhisperForConditionalGeneration(config).save_pretrained("parent")
    Path("train.py").write_text(TRAINER)
    return Path("parent")


def write(content):
    Path("experts.yaml").write_text(yaml.safe_dump(content))
    return Path("experts.yaml")


def weights(folder):
    return load_file(Path(folder) / "model.safetensors")


def noisy(name, seed, **more):
    return {
        "name": name,
        "command": ["python", "train.py", "{parent}", "{output}", seed],
        "inputs": ["train.py"],
        **more,
    }


def test_each_round_averages_its_experts_and_the_average_is_the_next_parent(whisper):
    content = {
        "parent": str(whisper),
        "output": "out",
        "rounds": 2,
        "parent_weight": 1.0,
        "experts": [noisy("one", "1"), noisy("two", "2", weight=4.0)],
    }
    result = CliRunner().invoke(make_app(), ["experts", str(write(content))])
    assert result.exit_code == 0, result.output
    for number, parent in ((1, whisper), (2, "out/round1/average")):
        one, two = weights(f"out/round{number}/one"), weights(f"out/round{number}/two")
        before, average = weights(parent), weights(f"out/round{number}/average")
        assert average.keys() == one.keys()
        for name, value in average.items():
            # weights 1 : 4 : 1, so the favoured member is four sixths
            expected = (one[name].double() + 4 * two[name].double() + before[name].double()) / 6
            torch.testing.assert_close(value.double(), expected, rtol=0, atol=1e-7)
            assert not torch.equal(value, before[name])
    loaded = WhisperForConditionalGeneration.from_pretrained("out/round2/average")
    assert torch.equal(loaded.proj_out.weight, loaded.model.decoder.embed_tokens.weight)
    again = CliRunner().invoke(make_app(), ["experts", "experts.yaml"])
    assert again.output.count("finished before") >= 6
    assert "out/round2/average" in again.output


def test_a_changed_weight_averages_anew_and_trains_nothing_again(whisper):
    content = {"parent": str(whisper), "output": "out", "experts": [noisy("one", "1"), noisy("two", "2")]}
    assert CliRunner().invoke(make_app(), ["experts", str(write(content))]).exit_code == 0
    trained = Path("out/round1/one/model.safetensors").stat().st_mtime_ns
    content["experts"][1]["weight"] = 3.0
    assert CliRunner().invoke(make_app(), ["experts", str(write(content))]).exit_code == 0
    assert Path("out/round1/one/model.safetensors").stat().st_mtime_ns == trained
    name = "model.encoder.conv1.weight"
    expected = (weights("out/round1/one")[name] + 3 * weights("out/round1/two")[name]) / 4
    torch.testing.assert_close(weights("out/round1/average")[name], expected)


def test_a_host_yaml_gets_the_parent_and_the_folder_of_its_round(folder):
    Path("asr.yaml").write_text(
        yaml.safe_dump({"model_name_or_path": "x", "adapter_name_or_path": "y", "output_dir": "z", "seed": 3})
    )
    content = {
        "parent": "base",
        "output": "out",
        "rounds": 2,
        "experts": [{"name": "asr", "train": "asr.yaml", "processes": 2}],
    }
    pipeline = yaml.safe_load(write_pipeline(experts_plan.load(write(content))).read_text())
    first, second = (yaml.safe_load(Path(f"out/configs/round{n}_asr.yaml").read_text()) for n in (1, 2))
    assert first == {"model_name_or_path": "base", "output_dir": "out/round1/asr", "seed": 3}
    assert second == {"model_name_or_path": "out/round1/average", "output_dir": "out/round2/asr", "seed": 3}
    needs = {step["name"]: step["needs"] for step in pipeline["steps"]}
    assert needs == {
        "round1_asr": [],
        "round1_average": ["round1_asr"],
        "round2_asr": ["round1_average"],
        "round2_average": ["round2_asr"],
    }
    assert {step["processes"] for step in pipeline["steps"] if "train" in step} == {2}
    average = yaml.safe_load(Path("out/configs/round1_average.yaml").read_text())
    assert average == {
        "output": "out/round1/average",
        "method": "linear",
        "base_model": "base",
        "models": [{"model": "out/round1/asr", "weight": 1.0}],
    }


def test_with_skills_parent_experts_and_averages_are_rows_of_the_matrix(folder):
    Path("asr.yaml").write_text(yaml.safe_dump({"finetuning_type": "lora"}))
    Path("qa.jsonl").write_text("")
    content = {
        "parent": "base",
        "output": "out",
        "experts": [{"name": "asr", "train": "asr.yaml"}, {"name": "old", "model": "full"}],
        "skills": [{"skill": "qa", "probe": "text_match", "options": {"data": "qa.jsonl"}}],
    }
    pipeline = yaml.safe_load(write_pipeline(experts_plan.load(write(content))).read_text())
    assert [step["evaluate"] for step in pipeline["steps"] if "evaluate" in step] == [
        {"stage": "parent", "model": "base"},
        {"stage": "round1_asr", "model": "base", "adapter": "out/round1/asr"},
        {"stage": "round1_old", "model": "full"},
        {"stage": "round1_average", "model": "out/round1/average"},
    ]


def test_all_mistakes_of_a_file_are_told_at_once(folder):
    content = {
        "parent": "base",
        "output": "out",
        "rounds": 2,
        "experts": [
            {"name": "one", "train": "nowhere.yaml"},
            {"name": "one", "model": "there"},
            {"name": "average", "command": ["true"]},
        ],
    }
    with pytest.raises(ConfigError) as caught:
        experts_plan.load(write(content))
    told = str(caught.value)
    for text in (
        "two experts are called 'one'",
        "there is no file nowhere.yaml",
        "a model that is there already cannot start from round 1",
        "'average' names a folder of ours",
    ):
        assert text in told


@pytest.mark.parametrize(
    ("expert", "text"),
    [
        ({"name": "one"}, "exactly one of train, command and model; given: none"),
        ({"name": "one", "model": "x", "weight": 0.0}, "must be above 0"),
        ({"name": "one", "model": "x", "wieght": 1.0}, "Did you mean 'weight'?"),
    ],
)
def test_a_wrong_expert_is_refused_in_words(folder, expert, text):
    with pytest.raises(ConfigError, match=text.replace("?", r"\?")):
        experts_plan.load(write({"parent": "base", "output": "out", "experts": [expert]}))
