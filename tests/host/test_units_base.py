"""The units base: one export, the same bytes each time, and where stage 1 starts."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from host.world import UNITS, export_config, train_config
from slm_plugin import card
from slm_plugin.vocabulary import UnitVocabulary

pytestmark = [pytest.mark.host, pytest.mark.xdist_group("host")]


def weights(folder):
    return load_file(folder / "model.safetensors")


def test_two_exports_with_the_same_seed_are_the_same_bytes(llm, units_base, run_host, tmp_path):
    run_host(export_config(llm, tmp_path / "again"))
    assert (tmp_path / "again" / "model.safetensors").read_bytes() == (units_base / "model.safetensors").read_bytes()


def test_another_seed_gives_other_unit_rows_and_the_same_text_rows(llm, units_base, run_host, tmp_path):
    run_host(export_config(llm, tmp_path / "other", slm={"units": {"count": UNITS, "seed": 7}}))
    first = UnitVocabulary.find(AutoTokenizer.from_pretrained(units_base)).first_id
    one, other = (weights(folder)["model.embed_tokens.weight"] for folder in (units_base, tmp_path / "other"))
    assert torch.equal(one[:first], other[:first])
    assert not torch.equal(one[first : first + UNITS], other[first : first + UNITS])


def test_the_units_base_holds_the_old_rows_and_contiguous_units(llm, units_base):
    tokenizer = AutoTokenizer.from_pretrained(units_base)
    n_old = len(AutoTokenizer.from_pretrained(llm))
    assert UnitVocabulary.find(tokenizer) == UnitVocabulary(n_old, UNITS)
    old, new = weights(llm), weights(units_base)
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        assert torch.equal(old[name][:n_old], new[name][:n_old])
    # 469 text tokens + 50 units, padded to a multiple of 64
    assert len(new["lm_head.weight"]) % 64 == 0
    assert card.read(units_base)["units"]["count"] == UNITS


def test_new_rows_start_as_the_mean_of_the_old_ones_plus_noise(llm, units_base):
    n_old = len(AutoTokenizer.from_pretrained(llm))
    rows = weights(units_base)["model.embed_tokens.weight"]
    spread = rows[n_old : n_old + UNITS] - rows[:n_old].mean(0)
    # the host's noise has standard deviation 1/sqrt(width)
    assert spread.std().item() == pytest.approx(rows.shape[1] ** -0.5, rel=0.1)


def test_covariance_rows_lie_close_to_the_mean(llm, run_host, tmp_path):
    run_host(export_config(llm, tmp_path / "cov", slm={"units": {"count": UNITS, "init": "covariance"}}))
    n_old = len(AutoTokenizer.from_pretrained(llm))
    rows = weights(tmp_path / "cov")["model.embed_tokens.weight"]
    distance = (rows[n_old:] - rows[:n_old].mean(0)).abs().max()
    # sqrt(1e-9) times a standard deviation of the old rows: about 3e-5 of it, and not zero
    assert 0 < distance < 1e-3 * rows[:n_old].std()


def test_stage_one_from_the_llm_equals_stage_one_from_the_units_base(llm, units_base, data, run_host, tmp_path):
    for name, model in (("direct", llm), ("based", units_base)):
        run_host(train_config(model, data, tmp_path / name))
    direct, based = (load_file(tmp_path / name / "adapter_model.safetensors") for name in ("direct", "based"))
    assert direct.keys() == based.keys()
    assert all(torch.equal(direct[name], based[name]) for name in direct)


def test_a_tied_model_stays_tied_through_units_training_and_export(tied_llm, data, run_host, tmp_path):
    run_host(export_config(tied_llm, tmp_path / "base"))
    run_host(train_config(tmp_path / "base", data, tmp_path / "asr"))
    run_host(export_config(tmp_path / "base", tmp_path / "model", adapter=tmp_path / "asr"))
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    assert model.get_input_embeddings().weight.data_ptr() == model.get_output_embeddings().weight.data_ptr()
    before = weights(tmp_path / "base")["model.embed_tokens.weight"]
    assert not torch.equal(model.get_input_embeddings().weight, before)


def test_an_extended_tokenizer_with_another_unit_count_is_refused(units_base, run_host, tmp_path):
    from slm_plugin.errors import VocabularyError

    with pytest.raises(VocabularyError, match=f"already holds {UNITS} units, the configuration asks for 60"):
        run_host(export_config(units_base, tmp_path / "x", slm={"units": {"count": 60}}))
