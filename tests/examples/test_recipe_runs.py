"""The paper's recipe, file by file through the real host, on a tiny random Mllama and a few rows."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from host.conftest import run_host  # noqa: F401  # fixtures
from host.world import write_data
from slm_plugin import card
from slm_plugin.text_decoder.extract import extract_text_decoder
from slm_plugin.vocabulary import UnitVocabulary
from text_decoder.mllama import make_mllama

# a dozen runs of the host
pytestmark = [pytest.mark.host, pytest.mark.slow, pytest.mark.xdist_group("host"), pytest.mark.timeout(900)]

ROOT = Path(__file__).resolve().parents[2]
NAME = "llama3_2_11b_vision"
FOR_A_CPU = {
    "use_cpu": True,
    "max_steps": 2,
    # two steps at the recipe's rate would not show in bf16, where the exports are written
    "learning_rate": 0.01,
    "dataloader_num_workers": 0,
    "preprocessing_num_workers": 1,
    "plot_loss": False,
}


def write_registered(folder: Path) -> None:
    """Write a few rows under the names of the published data sets."""
    write_data(folder)
    files = {"slm_llm": "llm.jsonl", "slm_asr": "libri.jsonl", "slm_tts": "libri.jsonl", "slm_sqa": "sqa.jsonl"}
    known = json.loads((ROOT / "dataset_info" / "dataset_info.json").read_text())
    local = {
        name: {"file_name": files[entry["formatting"]], "formatting": entry["formatting"]}
        for name, entry in known.items()
        if "hf_hub_url" in entry
    }
    (folder / "dataset_info.json").write_text(json.dumps(local))


def test_every_file_of_the_recipe_runs_in_order(run_host, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_registered(tmp_path / "data")
    runs = Path("runs") / NAME
    extract_text_decoder(make_mllama(tmp_path / "mllama"), runs / "text_decoder")

    def run(file: str, **changes: object) -> None:
        content = yaml.safe_load((ROOT / "examples" / NAME / file).read_text())
        if "do_train" in content:
            content |= {**FOR_A_CPU, "dataset_dir": str(tmp_path / "data")}
        run_host(content | changes)

    run("units_base.yaml")
    tokenizer = AutoTokenizer.from_pretrained(runs / "units_base")
    assert UnitVocabulary.find(tokenizer) == UnitVocabulary(469, 10_000)
    for stage, replayed in {"asr": {"magpie_text": 2}, "tts": {"magpie_text": 2, "ls960_asr": 2}}.items():
        run(f"{stage}.yaml")
        # 5 % of 40 rows
        assert card.read(runs / stage)["replay"] == replayed
    run("sqa.yaml")
    # 40 parts of 20 rows: 5 % are 40
    assert card.read(runs / "sqa")["replay"] == dict.fromkeys(("magpie_text", "ls960_asr", "ls960_tts"), 40)
    run("asr_no_replay.yaml")
    run("asr_l2.yaml")
    for file in ("export", "merge_linear", "merge_ties", "merge_dare", "discount"):
        run(f"{file}.yaml")
    folders = [runs / name for name in ("model", "merge_linear", "merge_ties", "merge_dare")]
    folders += [runs / "discount" / f"lora_scale_{factor}" for factor in (0.9, 0.7, 0.5)]
    heads = []
    for folder in folders:
        model = AutoModelForCausalLM.from_pretrained(folder)
        assert (model.dtype, model.config.model_type) == (torch.bfloat16, "llama")
        assert len(AutoTokenizer.from_pretrained(folder)) == 10_469
        heads.append(load_file(folder / "model.safetensors")["model.layers.0.self_attn.v_proj.weight"])
    assert all(torch.isfinite(head).all() for head in heads)
    assert len({head.float().sum().item() for head in heads}) == len(heads)
