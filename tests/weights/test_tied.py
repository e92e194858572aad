"""Folders that tie two different matrices are found and untied, whatever their files call them."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from slm_plugin.weights.tied import differing_matrices, untie_differing
from tiny_models import make_model

TABLE, HEAD = "model.embed_tokens.weight", "lm_head.weight"


@pytest.fixture
def tied(tmp_path):
    return make_model(tmp_path / "tied", tie=True)


def add_head(folder, shift, prefix=""):
    """Write a head that differs from the input embeddings by ``shift``, with ``prefix`` before all names."""
    tensors = load_file(folder / "model.safetensors")
    tensors[HEAD] = tensors[TABLE] + shift
    renamed = {prefix + name: tensor for name, tensor in tensors.items()}
    save_file(renamed, folder / "model.safetensors", metadata={"format": "pt"})


def edit_config(folder, edit):
    path = folder / "config.json"
    config = json.loads(path.read_text())
    edit(config)
    path.write_text(json.dumps(config))
    return path.read_text()


@pytest.mark.parametrize("prefix", ["", "language_model."])
def test_a_tied_folder_with_two_different_matrices_is_untied(tied, prefix):
    add_head(tied, 1.0, prefix)
    assert differing_matrices(tied) == (prefix + TABLE, prefix + HEAD)
    assert untie_differing(tied)
    assert json.loads((tied / "config.json").read_text())["tie_word_embeddings"] is False
    assert not untie_differing(tied)


@pytest.mark.parametrize("shift", [None, 0.0])
def test_one_matrix_and_two_equal_ones_stay_tied(tied, shift):
    if shift is not None:
        add_head(tied, shift)
    before = (tied / "config.json").read_bytes()
    assert differing_matrices(tied) is None
    assert not untie_differing(tied)
    assert (tied / "config.json").read_bytes() == before


def test_an_untied_folder_is_left_alone(tmp_path):
    assert not untie_differing(make_model(tmp_path / "untied"))


def test_a_configuration_may_leave_out_the_default_of_its_class(tied):
    add_head(tied, 1.0)
    # Gemma's configuration ties unless it says otherwise
    edit_config(tied, lambda config: (config.pop("tie_word_embeddings"), config.update(model_type="gemma")))
    assert untie_differing(tied)


def test_the_text_part_of_several_modalities_is_untied_too(tied):
    add_head(tied, 1.0)

    def nest(config):
        config["text_config"] = {"tie_word_embeddings": True, "vocab_size": config["vocab_size"]}
        del config["tie_word_embeddings"]

    edit_config(tied, nest)
    assert untie_differing(tied)
    config = json.loads((tied / "config.json").read_text())
    assert config["tie_word_embeddings"] is config["text_config"]["tie_word_embeddings"] is False


def test_values_decide_and_not_shapes(tied):
    add_head(tied, torch.zeros(64).index_fill(0, torch.tensor([63]), 1e-3))
    assert differing_matrices(tied) == (TABLE, HEAD)
