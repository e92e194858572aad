"""Speech networks from the files they are published in."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from slm_plugin.errors import CodecError
from slm_plugin.speech.convert.encoder import read_encoder
from slm_plugin.speech.features.network import build_network, fit_names, network_config
from speech_models import LAYER, N_LAYERS, fairseq_names, speech_network


def expected(network: Any) -> dict[str, torch.Tensor]:
    config = network_config(network.config.to_dict(), LAYER, "test")
    return fit_names(network.state_dict(), config)


def same(found: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor]) -> bool:
    return found.keys() == wanted.keys() and all(torch.equal(found[name], wanted[name]) for name in wanted)


@pytest.mark.parametrize("form", [1, 2])
@pytest.mark.parametrize("kind", ["xlsr", "hubert"])
def test_files_of_fairseq_and_fairseq2_give_the_network_of_transformers(tmp_path: Path, kind: str, form: int) -> None:
    network = speech_network(kind)
    torch.save({"model": fairseq_names(network, form)}, tmp_path / "network.pt")
    encoder = read_encoder(tmp_path / "network.pt", LAYER, 4, trusted=False)
    assert same(encoder.tensors, expected(network))
    theirs = network_config(network.config.to_dict(), LAYER, "test")
    # everything but the heads is read off the shapes; the file does not say whether it is called HuBERT
    for key in set(encoder.config) - {"model_type", "feat_proj_layer_norm", "conv_pos_batch_norm"}:
        assert encoder.config[key] == theirs[key], key
    # XLS-R takes normalised waves, made even by the reference; HuBERT base takes them as they are
    assert (encoder.normalise, encoder.appends_one) == ((True, True) if kind == "xlsr" else (False, False))
    assert encoder.normalise_eps == 1e-5


def test_the_tensors_of_later_layers_and_of_pre_training_are_left_out(tmp_path: Path) -> None:
    torch.save({"model": fairseq_names(speech_network(), 2)}, tmp_path / "network.pt")
    names = read_encoder(tmp_path / "network.pt", LAYER, 4, trusted=False).tensors
    assert not [
        name for name in names if f"encoder.layers.{LAYER}." in name or "quantizer" in name or "final_proj" in name
    ]
    assert N_LAYERS > LAYER
    assert [name for name in names if f"encoder.layers.{LAYER - 1}." in name]


def test_layer_35_of_48_is_the_default_and_of_other_networks_there_is_none(tmp_path: Path) -> None:
    from slm_plugin.speech.convert.encoder import _layer

    assert _layer(None, 48, tmp_path) == 35
    torch.save({"model": fairseq_names(speech_network(), 2)}, tmp_path / "network.pt")
    with pytest.raises(CodecError, match=r"has 5 layers; say which of them gives the features: --layer"):
        read_encoder(tmp_path / "network.pt", None, 4, trusted=False)


def test_a_fairseq_file_with_its_settings_is_read_when_trusted_and_they_count(tmp_path: Path) -> None:
    said = argparse.Namespace(encoder_attention_heads=4, layer_norm_first=True)
    content = {"model": fairseq_names(speech_network(), 1), "args": said}
    torch.save(content, tmp_path / "network.pt")
    with pytest.raises(CodecError, match=r"could run code of whoever made it; add --trust-pickle"):
        read_encoder(tmp_path / "network.pt", LAYER, None, trusted=False)
    encoder = read_encoder(tmp_path / "network.pt", LAYER, None, trusted=True)
    assert encoder.config["num_attention_heads"] == 4
    assert same(encoder.tensors, expected(speech_network()))


@pytest.mark.parametrize("kind", ["xlsr", "hubert", "wavlm"])
def test_a_folder_of_transformers_is_read(tmp_path: Path, kind: str) -> None:
    network = speech_network(kind)
    network.save_pretrained(tmp_path / "model")
    (tmp_path / "model" / "preprocessor_config.json").write_text(json.dumps({"do_normalize": False}))
    encoder = read_encoder(tmp_path / "model", LAYER, None, trusted=False)
    assert same(encoder.tensors, expected(network))
    assert encoder.config == network_config(network.config.to_dict(), LAYER, "test")
    assert (encoder.normalise, encoder.normalise_eps, encoder.appends_one) == (False, 1e-7, False)


def test_an_old_folder_with_a_head_and_weight_norm_of_old_names_is_read(tmp_path: Path) -> None:
    network = speech_network("hubert")
    ends = {"parametrizations.weight.original0": "weight_g", "parametrizations.weight.original1": "weight_v"}
    old = {}
    for name, tensor in network.state_dict().items():
        for new_end, old_end in ends.items():
            name = name.replace(new_end, old_end)
        old[f"hubert.{name}"] = tensor
    old["lm_head.weight"] = torch.zeros(3, 32)
    old["hubert.masked_spec_embed"] = torch.zeros(32)
    (tmp_path / "config.json").write_text(json.dumps(network.config.to_dict()))
    torch.save(old, tmp_path / "pytorch_model.bin")
    assert same(read_encoder(tmp_path, LAYER, None, trusted=False).tensors, expected(network))


def test_a_tensor_that_is_missing_is_named(tmp_path: Path) -> None:
    network = speech_network()
    network.save_pretrained(tmp_path)
    tensors = {name: tensor.contiguous() for name, tensor in network.state_dict().items()}
    del tensors["encoder.layers.2.attention.k_proj.weight"]
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(CodecError, match=r"encoder\.layers\.2\.attention\.k_proj\.weight is missing"):
        read_encoder(tmp_path, LAYER, None, trusted=False)


def test_other_networks_and_damaged_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.pt"
    with pytest.raises(CodecError, match="does not exist"):
        read_encoder(path, LAYER, None, trusted=False)
    path.write_bytes(b"not a checkpoint")
    with pytest.raises(CodecError, match="is damaged or no checkpoint of torch"):
        read_encoder(path, LAYER, None, trusted=False)
    torch.save({"model": {"decoder.embed.weight": torch.zeros(2)}}, path)
    with pytest.raises(CodecError, match=r"1 tensors are not those of a wav2vec 2\.0 .* such as 'decoder\.embed"):
        read_encoder(path, LAYER, None, trusted=False)
    torch.save({"model": {}}, path)
    with pytest.raises(CodecError, match="holds no named tensors"):
        read_encoder(path, LAYER, None, trusted=False)
    torch.save({"model": fairseq_names(speech_network(), 2)}, path)
    # 32 wide and not divisible by 5
    with pytest.raises(CodecError, match="5 attention heads do not divide the width 32"):
        read_encoder(path, LAYER, 5, trusted=False)


def test_what_is_built_is_what_is_written_down(tmp_path: Path) -> None:
    torch.save({"model": fairseq_names(speech_network(), 2)}, tmp_path / "network.pt")
    encoder = read_encoder(tmp_path / "network.pt", LAYER, 4, trusted=False)
    again = build_network(json.loads(json.dumps(encoder.config)))
    assert set(again.state_dict()) == set(encoder.tensors)
