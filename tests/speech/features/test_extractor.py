"""Features: parity with transformers' whole networks, ragged batches, odd lengths, windows, precision."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from slm_plugin.errors import CodecError
from slm_plugin.speech.features.extractor import FeatureExtractor
from slm_plugin.speech.features.network import build_network, fill, fit_names, network_config
from slm_plugin.speech.features.settings import FeatureSettings
from speech_models import LAYER, N_LAYERS, WIDTH, speech_network, wave

CPU = torch.device("cpu")
KINDS = ("xlsr", "hubert", "wavlm")
LENGTHS = (16_000, 400, 23_456, 399, 0, 7_777, 16_000)


@pytest.fixture(scope="module")
def networks() -> dict[str, Any]:
    return {kind: speech_network(kind) for kind in KINDS}


def extractor(network: Any, batch_s: float = 60.0, layer: int = LAYER, **settings: Any) -> FeatureExtractor:
    config = network_config(network.config.to_dict(), layer, "test")
    ours = build_network(config)
    tensors = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    fill(ours, fit_names(tensors, config), "test")
    return FeatureExtractor(FeatureSettings(layer=layer, **settings), ours, config, CPU, batch_s)


def whole(network: Any, wave_N: np.ndarray, layer: int = LAYER, eps: float = 1e-5) -> torch.Tensor:
    """The independent way: the network with all its layers, one clip, no mask, its own hidden states."""
    samples = torch.from_numpy(wave_N).double()
    normalised = (samples - samples.mean()) / (samples.var(correction=0) + eps).sqrt()
    with torch.inference_mode():
        return network(normalised.float()[None], output_hidden_states=True).hidden_states[layer][0]


@pytest.mark.parametrize("kind", KINDS)
def test_features_are_the_hidden_states_of_the_whole_network(networks: dict[str, Any], kind: str) -> None:
    found = extractor(networks[kind]).features([wave(1.5)])[0]
    expected = whole(networks[kind], wave(1.5))
    assert found.shape == expected.shape == (74, WIDTH)
    torch.testing.assert_close(found, expected, atol=2e-5, rtol=1e-5)


def test_the_weight_norm_of_the_positions_is_multiplied_out_and_changes_no_weight(networks: dict[str, Any]) -> None:
    settled = extractor(networks["xlsr"])._network.encoder.pos_conv_embed.conv
    theirs = networks["xlsr"].encoder.pos_conv_embed.conv
    assert "weight" in dict(settled.named_buffers())
    assert "weight" not in dict(theirs.named_buffers())
    assert torch.equal(settled.weight, theirs.weight)


def test_layers_beyond_the_one_that_is_needed_are_not_kept(networks: dict[str, Any]) -> None:
    config = network_config(networks["xlsr"].config.to_dict(), LAYER, "test")
    assert len(build_network(config).encoder.layers) == LAYER < N_LAYERS


def test_the_norm_behind_the_last_layer_is_not_part_of_the_feature(networks: dict[str, Any]) -> None:
    with torch.inference_mode():
        normed = networks["xlsr"].encoder.layer_norm(whole(networks["xlsr"], wave(1.0)))
    found = extractor(networks["xlsr"]).features([wave(1.0)])[0]
    assert (found - normed).abs().max() > 0.1


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("batch_s", [0.1, 4.0, 60.0])
def test_ragged_batches_give_what_single_waves_give(networks: dict[str, Any], kind: str, batch_s: float) -> None:
    waves = [wave(2.0, seed)[:n] for seed, n in enumerate(LENGTHS)]
    together = extractor(networks[kind], batch_s).features(waves)
    assert [len(found) for found in together] == [49, 1, 73, 0, 0, 24, 49]
    for wave_N, found in zip(waves, together, strict=True):
        if len(found):
            torch.testing.assert_close(found, whole(networks[kind], wave_N), atol=3e-5, rtol=1e-5)


def test_odd_lengths_get_one_sample_of_one_before_they_are_normalised_where_asked(networks: dict[str, Any]) -> None:
    odd, even = wave(1.0)[:15_759], wave(1.0)[:16_000]
    appended = extractor(networks["xlsr"], odd_length="append_one").features([odd, even])
    expected = whole(networks["xlsr"], np.append(odd, np.float32(1.0)))
    # (15760 - 400) // 320 + 1 = 49 frames with the appended sample, 48 without
    assert len(appended[0]) == 49
    torch.testing.assert_close(appended[0], expected, atol=2e-5, rtol=1e-5)
    torch.testing.assert_close(appended[1], whole(networks["xlsr"], even), atol=2e-5, rtol=1e-5)
    assert len(extractor(networks["xlsr"]).features([odd])[0]) == 48


def test_near_silence_depends_on_the_constant_in_the_normalisation(networks: dict[str, Any]) -> None:
    quiet = wave(0.5) * 1e-3
    for eps in (1e-5, 1e-7):
        found = extractor(networks["xlsr"], normalise_eps=eps).features([quiet])[0]
        torch.testing.assert_close(found, whole(networks["xlsr"], quiet, eps=eps), atol=2e-5, rtol=1e-5)


def test_windows_with_all_the_context_there_is_change_nothing(networks: dict[str, Any]) -> None:
    windowed = extractor(networks["xlsr"], window_s=1.0, context_s=60.0).features([wave(3.3)])[0]
    torch.testing.assert_close(windowed, whole(networks["xlsr"], wave(3.3)), atol=2e-5, rtol=1e-5)


def test_windows_have_every_frame_and_come_near_the_whole_with_context(networks: dict[str, Any]) -> None:
    expected = whole(networks["xlsr"], wave(6.0))
    errors = []
    for context_s in (0.0, 0.5, 2.0):
        found = extractor(networks["xlsr"], window_s=1.0, context_s=context_s).features([wave(6.0)])[0]
        assert found.shape == expected.shape
        errors.append(float((found - expected).pow(2).mean()))
    assert errors[0] > errors[1] > errors[2]


def test_bfloat16_is_near_and_not_equal(networks: dict[str, Any]) -> None:
    found = extractor(networks["xlsr"], dtype="bfloat16").features([wave(1.0)])[0]
    expected = whole(networks["xlsr"], wave(1.0))
    assert found.dtype == torch.float32
    assert 0 < float((found - expected).norm() / expected.norm()) < 0.5


def test_int8_is_near_and_not_equal(networks: dict[str, Any]) -> None:
    found = extractor(networks["xlsr"], int8=True).features([wave(1.0), wave(0.7)])[0]
    expected = whole(networks["xlsr"], wave(1.0))
    assert 0 < float((found - expected).norm() / expected.norm()) < 0.5


def test_float16_on_a_cpu_and_int8_with_another_type_are_refused(networks: dict[str, Any]) -> None:
    with pytest.raises(CodecError, match=r"float16 needs a GPU; use dtype: float32 or bfloat16"):
        extractor(networks["xlsr"], dtype="float16")
    with pytest.raises(CodecError, match=r"set dtype to float32, not bfloat16"):
        extractor(networks["xlsr"], dtype="bfloat16", int8=True)


def test_features_that_are_no_numbers_are_an_error_and_not_unit_0(networks: dict[str, Any]) -> None:
    broken = wave(1.0)
    broken[100] = np.nan
    with pytest.raises(CodecError, match=r"no finite numbers came out of the network in float32"):
        extractor(networks["xlsr"]).features([broken])


def test_weights_that_do_not_fit_are_refused_by_name(networks: dict[str, Any]) -> None:
    config = network_config(networks["xlsr"].config.to_dict(), LAYER, "test")
    tensors = fit_names(networks["xlsr"].state_dict(), config)
    del tensors["encoder.layers.1.layer_norm.bias"]
    tensors["encoder.layers.0.layer_norm.weight"] = torch.zeros(7)
    tensors["stranger"] = torch.zeros(1)
    with pytest.raises(CodecError) as raised:
        fill(build_network(config), tensors, "here")
    text = str(raised.value)
    assert text.startswith("here: the weights do not fit the network: ")
    assert "encoder.layers.1.layer_norm.bias is missing" in text
    assert "stranger belongs nowhere" in text
    assert "encoder.layers.0.layer_norm.weight has shape (7,) instead of (32,)" in text


def test_another_network_and_a_layer_that_it_lacks_are_refused(networks: dict[str, Any]) -> None:
    with pytest.raises(CodecError, match=r"model_type 'huber' is not known here\. Did you mean 'hubert'\?"):
        network_config({"model_type": "huber"}, 1, "x/config.json")
    with pytest.raises(CodecError, match=r"has 5 layers; layer 6 is not one of 1\.\.5"):
        network_config(networks["xlsr"].config.to_dict(), 6, "x/config.json")
