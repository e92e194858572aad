"""The text decoder in the host: units are added, a stage trains, and what comes out is exported."""

from __future__ import annotations

import json
import math

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from host.world import UNITS, export_config, train_config
from slm_plugin.vocabulary import UnitVocabulary

pytestmark = [pytest.mark.host, pytest.mark.xdist_group("host")]


def test_it_gets_units_and_trains_a_step(decoder, data, run_host, tmp_path):
    run_host(export_config(decoder, tmp_path / "base"))
    found = UnitVocabulary.find(AutoTokenizer.from_pretrained(tmp_path / "base"))
    # 469 tokens without that of the image, whose id is now that of unit 0
    assert found == UnitVocabulary(469, UNITS)
    base = AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    # 519 rows, padded to a multiple of 64
    assert base.config.vocab_size == 576
    text = AutoModelForCausalLM.from_pretrained(decoder)
    assert torch.equal(base.get_input_embeddings().weight[:469], text.get_input_embeddings().weight)
    run_host(train_config(tmp_path / "base", data, tmp_path / "asr", max_steps=1))
    assert math.isfinite(json.loads((tmp_path / "asr" / "train_results.json").read_text())["train_loss"])
    run_host(export_config(tmp_path / "base", tmp_path / "model", tmp_path / "asr"))
    trained = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    unit_rows = trained.get_input_embeddings().weight[469:519]
    assert not torch.equal(unit_rows, base.get_input_embeddings().weight[469:519])
