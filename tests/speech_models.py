"""Narrow speech networks and vocoders of the real classes and the real file layouts, at random weights.

The names of fairseq, fairseq2 and seamless_communication are written down here a second time, in the other
direction, so that a converter that is wrong in one of them is caught.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

N_LAYERS = 5
"""Layers of the whole networks."""

LAYER = 3
"""Layer that features are taken from."""

WIDTH = 32


def speech_network(kind: str = "xlsr", seed: int = 0) -> Any:
    """Return a whole network: ``xlsr`` (LayerNorm everywhere, as XLS-R), ``hubert`` (GroupNorm, as HuBERT base)."""
    from transformers import HubertConfig, HubertModel, Wav2Vec2Config, Wav2Vec2Model, WavLMConfig, WavLMModel

    sizes = {
        "hidden_size": WIDTH,
        "num_hidden_layers": N_LAYERS,
        "num_attention_heads": 4,
        "intermediate_size": 64,
        "conv_dim": (16,) * 7,
        "num_conv_pos_embeddings": 16,
        "num_conv_pos_embedding_groups": 4,
        "mask_time_prob": 0.0,
    }
    large = {"feat_extract_norm": "layer", "do_stable_layer_norm": True, "conv_bias": True}
    classes = {
        "xlsr": (Wav2Vec2Model, Wav2Vec2Config, large),
        "hubert": (HubertModel, HubertConfig, {}),
        "wavlm": (WavLMModel, WavLMConfig, large),
    }
    model, config, more = classes[kind]
    torch.manual_seed(seed)
    return model(config(**sizes, **more)).eval()


def wave(seconds: float, seed: int = 0) -> np.ndarray:
    """Return a wave at 16 kHz whose sound changes all the time."""
    rng = np.random.default_rng(seed)
    n_samples = int(seconds * 16_000)
    time_N = np.arange(n_samples) / 16_000
    pitch_hz = 150 + 700 * np.abs(np.sin((2 + seed) * time_N))
    sound_N = 0.4 * np.sin(2 * np.pi * np.cumsum(pitch_hz) / 16_000) * np.abs(np.sin(7 * time_N))
    return (sound_N + 0.02 * rng.standard_normal(n_samples)).astype(np.float32)


def centroids(network: Any, n_units: int, layer: int = LAYER, seed: int = 0) -> torch.Tensor:
    """Return points among the features of a whole network, so that many of them are the nearest to some frame."""
    with torch.inference_mode():
        states = network(torch.from_numpy(wave(12.0, seed=9))[None], output_hidden_states=True).hidden_states[layer][0]
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.randperm(len(states), generator=generator)[:n_units]
    return states[chosen] + 0.01 * torch.randn(n_units, states.shape[1], generator=generator)


_LAYER_PARTS = (
    ("attention.q_proj", "self_attn.q_proj", "self_attn.q_proj"),
    ("attention.k_proj", "self_attn.k_proj", "self_attn.k_proj"),
    ("attention.v_proj", "self_attn.v_proj", "self_attn.v_proj"),
    ("attention.out_proj", "self_attn.out_proj", "self_attn.output_proj"),
    ("layer_norm", "self_attn_layer_norm", "self_attn_layer_norm"),
    ("feed_forward.intermediate_dense", "fc1", "ffn.inner_proj"),
    ("feed_forward.output_dense", "fc2", "ffn.output_proj"),
    ("final_layer_norm", "final_layer_norm", "ffn_layer_norm"),
)


def fairseq_names(network: Any, form: int) -> dict[str, torch.Tensor]:
    """Return the tensors of a whole network as fairseq (1) or fairseq2 (2) names them, with a pre-training head."""
    assert form in (1, 2)
    pick = form - 1
    norms = ("2.1", "layer_norm") if network.config.feat_extract_norm == "layer" else ("2", "group_norm")
    table = {
        "feature_projection.layer_norm": ("layer_norm", "encoder_frontend.post_extract_layer_norm")[pick],
        "feature_projection.projection": ("post_extract_proj", "encoder_frontend.model_dim_proj")[pick],
        "encoder.layer_norm": (
            "encoder.layer_norm",
            "encoder.layer_norm" if network.config.do_stable_layer_norm else "encoder_frontend.layer_norm",
        )[pick],
    }
    for i in range(7):
        front = (f"feature_extractor.conv_layers.{i}", f"encoder_frontend.feature_extractor.layers.{i}")[pick]
        table[f"feature_extractor.conv_layers.{i}.conv"] = f"{front}.{('0', 'conv')[pick]}"
        table[f"feature_extractor.conv_layers.{i}.layer_norm"] = f"{front}.{norms[pick]}"
    for i in range(N_LAYERS):
        for name, *names in _LAYER_PARTS:
            table[f"encoder.layers.{i}.{name}"] = f"encoder.layers.{i}.{names[pick]}"
    position = ("encoder.pos_conv.0", "encoder_frontend.pos_encoder.conv")[pick]
    found = {}
    for name, tensor in network.state_dict().items():
        if name.startswith("encoder.pos_conv_embed.conv."):
            end = {"original0": "weight_g", "original1": "weight_v", "bias": "bias"}[name.rsplit(".", 1)[1]]
            found[f"{position}.{end}"] = tensor
        else:
            stem, end = name.rsplit(".", 1)
            found[f"{table[stem]}.{end}"] = tensor
    head = {1: "quantizer.vars", 2: "vector_quantizer.entries"}[form]
    found[head] = torch.zeros(1, 8, 4)
    found[{1: "mask_emb", 2: "masker.temporal_mask_embed"}[form]] = torch.zeros(WIDTH)
    found["final_proj.weight"] = torch.zeros(4, WIDTH)
    return found


N_UNITS = 40
VOCODER_SIZES: dict[str, Any] = {
    "unit_hifi_gan_vocab_size": N_UNITS,
    "unit_embed_dim": 24,
    "lang_embed_dim": 6,
    "spkr_embed_dim": 5,
    "upsample_initial_channel": 32,
}


def vocoder_network(seed: int = 0, **sizes: Any) -> Any:
    """Return a narrow ``SeamlessM4Tv2CodeHifiGan`` with the real 36 languages, 200 speakers, rates and kernels.

    Units last two frames on average, some one and some many.
    """
    from transformers import SeamlessM4Tv2Config
    from transformers.models.seamless_m4t_v2.modeling_seamless_m4t_v2 import SeamlessM4Tv2CodeHifiGan

    torch.manual_seed(seed)
    network = SeamlessM4Tv2CodeHifiGan(SeamlessM4Tv2Config(**{**VOCODER_SIZES, **sizes})).eval()
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, torch.nn.Conv1d | torch.nn.ConvTranspose1d):
                fan_in = module.weight[0].numel() if isinstance(module, torch.nn.Conv1d) else module.weight.shape[0]
                # quiet enough that tanh at the end leaves the wave what it is
                gain = 0.8
                module.weight.normal_(std=gain * fan_in**-0.5)
                module.bias.normal_(std=0.02)
        for embedding in (network.unit_embedding, network.language_embedding, network.speaker_embedding):
            embedding.weight.normal_()
        network.dur_predictor.proj.weight.mul_(2.0)
        network.dur_predictor.proj.bias.fill_(1.0)
    return network


def seamless_names(network: Any) -> dict[str, torch.Tensor]:
    """Return a vocoder's tensors as ``vocoder_v2.pt`` names them, with weight norm as g and v."""
    found = {}
    for name, tensor in network.state_dict().items():
        stem, end = name.rsplit(".", 1)
        stem = stem.replace("hifi_gan.upsampler", "ups").replace("hifi_gan.", "")
        stem = {"unit_embedding": "dict", "language_embedding": "lang", "speaker_embedding": "spkr"}.get(stem, stem)
        if stem in ("dur_predictor.conv1", "dur_predictor.conv2"):
            stem += ".0"
        normed = name.startswith("hifi_gan.") and end == "weight"
        if normed:
            norm = tensor.flatten(1).norm(dim=1)[:, None, None]
            # any length of v gives the same weight
            found[f"code_generator.{stem}.weight_g"] = norm
            found[f"code_generator.{stem}.weight_v"] = tensor * 1.7
        else:
            found[f"code_generator.{stem}.{end}"] = tensor
    return found


def write_seamless_checkpoint(folder: Path, network: Any, others: int = 200_000) -> int:
    """Write a whole Seamless checkpoint in transformers' form, three shards; return the bytes of its vocoder.

    Args:
        folder: Folder to write.
        network: The vocoder.
        others: Numbers of all other parts together.
    """
    from safetensors.torch import save_file

    folder.mkdir(parents=True)
    vocoder = {f"vocoder.{name}": tensor.contiguous() for name, tensor in network.state_dict().items()}
    names = sorted(vocoder)
    half = len(names) // 2
    shards = [
        {"text_encoder.weight": torch.zeros(others // 2)},
        {"text_decoder.a": torch.zeros(others // 4), **{name: vocoder[name] for name in names[:half]}},
        {**{name: vocoder[name] for name in names[half:]}, "t2u_model.z": torch.zeros(others // 4)},
    ]
    index = {}
    for number, shard in enumerate(shards, 1):
        file = f"model-{number:05d}-of-00003.safetensors"
        save_file(shard, folder / file, metadata={"format": "pt"})
        index |= dict.fromkeys(shard, file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": index}))
    network.config.save_pretrained(folder)
    from slm_plugin.speech.vocoder.voices import seamless_voices

    codes = {language: number for number, language in enumerate(seamless_voices().languages)}
    (folder / "generation_config.json").write_text(json.dumps({"vocoder_lang_code_to_id": codes}))
    return sum(tensor.numel() * tensor.element_size() for tensor in vocoder.values())
