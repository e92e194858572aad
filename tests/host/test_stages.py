"""Training stage after stage on a units base: what is saved, continued, exported and reloaded."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from host.world import UNITS, export_config, train_config
from slm_plugin import card
from slm_plugin.errors import DataError

pytestmark = [pytest.mark.host, pytest.mark.xdist_group("host")]


@pytest.fixture(scope="module")
def asr(units_base, data, run_host, tmp_path_factory):
    folder = tmp_path_factory.mktemp("stages") / "asr"
    run_host(train_config(units_base, data, folder))
    return folder


@pytest.fixture(scope="module")
def tts(units_base, data, run_host, asr):
    folder = asr.parent / "tts"
    run_host(train_config(units_base, data, folder, stage="tts", adapter_name_or_path=str(asr)))
    return folder


def test_an_adapter_holds_each_embedding_matrix_once(asr):
    names = [name for name in load_file(asr / "adapter_model.safetensors") if "lora" not in name]
    assert sorted(names) == ["base_model.model.lm_head.weight", "base_model.model.model.embed_tokens.weight"]


def test_the_card_says_what_the_adapter_was_made_from(asr, units_base):
    found = card.read(asr)
    assert found["stage"] == "asr"
    assert found["units"]["count"] == UNITS
    assert found["base"] == {"path": str(units_base), "fingerprint": card.fingerprint(units_base)}
    assert found["replay"] == {}
    assert found["versions"]["llamafactory"] == "0.9.5"


def test_the_next_stage_continues_the_adapter_of_the_last(asr, tts):
    before, after = (load_file(folder / "adapter_model.safetensors") for folder in (asr, tts))
    assert before.keys() == after.keys()
    assert any(not torch.equal(before[name], after[name]) for name in before)
    # three steps at a rate of 1e-3 move no weight far: the second stage did not start anew
    assert max((before[name] - after[name]).abs().max() for name in before) < 0.02


def test_the_exported_model_is_the_base_with_the_adapter_merged(tts, units_base, run_host, tmp_path):
    run_host(export_config(units_base, tmp_path / "model", adapter=tts, slm={}))
    exported = AutoModelForCausalLM.from_pretrained(tmp_path / "model", dtype=torch.float32)
    base = AutoModelForCausalLM.from_pretrained(units_base, dtype=torch.float32)
    merged = PeftModel.from_pretrained(base, tts).merge_and_unload()
    ids = torch.arange(40)[None]
    with torch.no_grad():
        assert torch.equal(exported(ids).logits, merged(ids).logits)
    assert len(AutoTokenizer.from_pretrained(tmp_path / "model")) == len(AutoTokenizer.from_pretrained(units_base))
    # an empty block takes the units from the adapter's card
    assert card.read(tmp_path / "model")["units"]["count"] == UNITS


def test_training_from_a_model_without_units_exports_without_a_size_mismatch(llm, data, run_host, tmp_path):
    run_host(train_config(llm, data, tmp_path / "asr"))
    run_host(export_config(llm, tmp_path / "model", adapter=tmp_path / "asr", slm={}))
    exported = load_file(tmp_path / "model" / "model.safetensors")
    trained = load_file(tmp_path / "asr" / "adapter_model.safetensors")
    saved = trained["base_model.model.model.embed_tokens.weight"]
    assert torch.equal(exported["model.embed_tokens.weight"], saved)


@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
def test_train_units_rows_changes_only_the_unit_rows(tied, llm, tied_llm, data, run_host, tmp_path):
    run_host(export_config(tied_llm if tied else llm, tmp_path / "base"))
    slm = {"stage": "asr", "units": {"count": UNITS}, "train_units": "rows"}
    run_host(train_config(tmp_path / "base", data, tmp_path / "asr", slm=slm))
    run_host(
        train_config(
            tmp_path / "base", data, tmp_path / "tts", stage="tts", adapter_name_or_path=str(tmp_path / "asr"), slm=slm
        )
    )
    run_host(export_config(tmp_path / "base", tmp_path / "model", adapter=tmp_path / "tts", slm={}))
    before, after = (load_file(tmp_path / name / "model.safetensors") for name in ("base", "model"))
    first = card.read(tmp_path / "base")["units"]["first_id"]
    for name in ["model.embed_tokens.weight"] + ([] if tied else ["lm_head.weight"]):
        changed = (before[name] != after[name]).any(dim=1).nonzero().flatten()
        assert len(changed) > 0
        assert first <= changed.min()
        assert changed.max() < first + UNITS
    assert (tmp_path / "tts" / "adapter_model.safetensors").stat().st_size < 150_000


def test_rows_that_all_exceed_the_limit_are_refused_before_training(units_base, data, run_host, tmp_path):
    with pytest.raises(DataError, match=r"'asr' has no row that fits cutoff_len 24: its rows have \d+ to \d+ tokens"):
        run_host(train_config(units_base, data, tmp_path / "asr", cutoff_len=24))
    assert not (tmp_path / "asr" / "adapter_model.safetensors").exists()


def test_rows_over_the_limit_are_dropped_by_default_and_counted(units_base, data, run_host, tmp_path, slm_log):
    lengths = sorted(_sqa_lengths(units_base, data))
    limit = lengths[len(lengths) // 2]
    n_long = sum(length > limit for length in lengths)
    run_host(train_config(units_base, data, tmp_path / "sqa", stage="sqa", cutoff_len=limit))
    assert f"sqa: {20 - n_long} of 20 rows, {n_long} longer than cutoff_len {limit} and dropped" in slm_log()


def _sqa_lengths(model, data):
    tokenizer = AutoTokenizer.from_pretrained(model)
    for line in (data / "sqa.jsonl").read_text().splitlines():
        row = json.loads(line)
        answer = "\n\n".join((row["input_pseudo"], row["output_pseudo"], row["output_7306_interleaf"]))
        user = "".join(f"<|{unit}|>" for unit in row["input_unit"])
        chat = [{"role": "user", "content": user}, {"role": "assistant", "content": answer}]
        yield len(tokenizer.apply_chat_template(chat, return_dict=False))


def test_empty_rows_are_dropped_and_counted(units_base, data, run_host, tmp_path, slm_log):
    mixed = tmp_path / "data"
    mixed.mkdir()
    text = (data / "libri.jsonl").read_text()
    (mixed / "libri.jsonl").write_text(
        text + json.dumps({**json.loads(text.splitlines()[0]), "discrete_unit": []}) + "\n"
    )
    (mixed / "dataset_info.json").write_text((data / "dataset_info.json").read_text())
    run_host(train_config(units_base, mixed, tmp_path / "asr"))
    assert "asr: 40 of 41 rows, 1 dropped as empty or invalid" in slm_log()


def test_units_out_of_range_stop_the_run_before_training(units_base, data, run_host, tmp_path):
    from slm_plugin.errors import VocabularyError

    bad = tmp_path / "data"
    bad.mkdir()
    row = {**json.loads((data / "libri.jsonl").read_text().splitlines()[0]), "discrete_unit": [3, UNITS]}
    (bad / "libri.jsonl").write_text(json.dumps(row) + "\n")
    (bad / "dataset_info.json").write_text((data / "dataset_info.json").read_text())
    with pytest.raises(VocabularyError, match=f"unit {UNITS} at position 1 is outside 0..{UNITS - 1}"):
        run_host(train_config(units_base, bad, tmp_path / "asr"))


def test_an_export_prompts_as_in_training_whatever_the_model_s_own_template_says(units_base, run_host, tmp_path):
    model = tmp_path / "dated"
    shutil.copytree(units_base, model)
    tokenizer = AutoTokenizer.from_pretrained(model)
    plain = tokenizer.chat_template
    tokenizer.chat_template = "today is monday " + plain
    tokenizer.save_pretrained(model)
    run_host(export_config(model, tmp_path / "model"))
    exported = AutoTokenizer.from_pretrained(tmp_path / "model")
    chat = [{"role": "user", "content": "hello"}]
    text = exported.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    head = "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\n"
    assert text == head + "hello<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n"
