"""A speech network up to one layer, from a fairseq checkpoint or a transformers folder."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from slm_plugin.errors import CodecError
from slm_plugin.speech.convert.fairseq_names import rename
from slm_plugin.speech.convert.pickles import load_checkpoint, tensors_of
from slm_plugin.speech.features.network import build_network, fill, fit_names, network_config

XLSR_LAYERS, XLSR_LAYER = 48, 35
"""Layers of the 1B XLS-R, and the one that the reference takes."""

_STRIDES = [5, 2, 2, 2, 2, 2, 2]
_HEADS = 16


@dataclass(frozen=True)
class Encoder:
    """A speech network up to one layer.

    Attributes:
        config: What :func:`slm_plugin.speech.features.network.build_network` takes.
        tensors: Its weights.
        normalise: Whether it was trained on normalised waves, as far as the source says.
        normalise_eps: What the source's own front end adds to the variance.
        appends_one: Whether the source's own front end makes odd lengths even.
    """

    config: dict[str, Any]
    tensors: dict[str, torch.Tensor]
    normalise: bool
    normalise_eps: float
    appends_one: bool


def read_encoder(source: Path, layer: int | None, n_heads: int | None, trusted: bool) -> Encoder:
    """Read a network and keep what the features of a layer need.

    Args:
        source: A ``.pt`` file of fairseq or fairseq2, or a folder in transformers' form.
        layer: The layer, counted from 1; by default 35 of a network with 48.
        n_heads: Attention heads, which a ``.pt`` file does not always say; 16 by default.
        trusted: Whether the file may run code.

    Raises:
        CodecError: The source is missing or damaged, has no such layer, or a tensor of it has no place.
    """
    encoder = _from_folder(source, layer, trusted) if source.is_dir() else _from_file(source, layer, n_heads, trusted)
    # built once here, so that a folder that cannot be used is never written
    fill(build_network(encoder.config), encoder.tensors, str(source))
    return encoder


def _from_folder(folder: Path, layer: int | None, trusted: bool) -> Encoder:
    raw = _json(folder / "config.json")
    config = network_config(raw, _layer(layer, raw.get("num_hidden_layers", 0), folder), str(folder / "config.json"))
    front = folder / "preprocessor_config.json"
    normalise = bool(_json(front).get("do_normalize", True)) if front.is_file() else True
    return Encoder(config, fit_names(_weights(folder, trusted), config), normalise, 1e-7, False)


def _weights(folder: Path, trusted: bool) -> Mapping[str, torch.Tensor]:
    from slm_plugin.errors import WeightsError
    from slm_plugin.weights.checkpoint import Checkpoint

    old = folder / "pytorch_model.bin"
    if old.is_file() and not list(folder.glob("*.safetensors")):
        return tensors_of(load_checkpoint(old, trusted), (), old)
    try:
        checkpoint = Checkpoint(folder)
        return {name: checkpoint.tensor(name) for name in checkpoint.names()}
    except WeightsError as error:
        raise CodecError(str(error)) from None


def _from_file(path: Path, layer: int | None, n_heads: int | None, trusted: bool) -> Encoder:
    content = load_checkpoint(path, trusted)
    held = tensors_of(content, ("model", "model_state_dict"), path)
    names = {name: rename(name) for name in held}
    strangers = [name for name, renamed in names.items() if renamed is None]
    if strangers:
        raise CodecError(
            f"{path}: {len(strangers)} tensors are not those of a wav2vec 2.0 or HuBERT of fairseq,"
            f" such as {strangers[0]!r}."
        )
    tensors = {renamed: held[name] for name, renamed in names.items() if renamed}
    config = _config(tensors, _settings(content), layer, n_heads, path)
    stable: bool = config["do_stable_layer_norm"]
    return Encoder(config, fit_names(tensors, config), stable, 1e-5, stable)


def _config(
    tensors: Mapping[str, torch.Tensor], said: Mapping[str, Any], layer: int | None, n_heads: int | None, path: Path
) -> dict[str, Any]:
    """Return a config read off the shapes of the tensors, and off what the checkpoint says of itself."""
    layers = {int(found[1]) for name in tensors if (found := re.match(r"encoder\.layers\.(\d+)\.", name))}
    convolutions = {int(found[1]) for name in tensors if (found := re.match(r".*conv_layers\.(\d+)\.conv\.w", name))}
    positions = [tensors[name] for name in tensors if re.search(r"pos_conv_embed.*(weight_v|original1)$", name)]
    try:
        weights = [tensors[f"feature_extractor.conv_layers.{i}.conv.weight"] for i in range(len(convolutions))]
        width = len(tensors["feature_projection.projection.bias"])
        inner = len(tensors["encoder.layers.0.feed_forward.intermediate_dense.bias"])
    except KeyError as error:
        raise CodecError(f"{path} lacks {error}; a wav2vec 2.0 or HuBERT of fairseq has it.") from None
    if len(positions) != 1 or not weights or not layers:
        raise CodecError(f"{path} lacks layers of a wav2vec 2.0 or HuBERT of fairseq.")
    by_layer = "feature_extractor.conv_layers.1.layer_norm.weight" in tensors
    heads = n_heads or int(said.get("encoder_attention_heads", _HEADS))
    if width % heads:
        raise CodecError(f"{path}: {heads} attention heads do not divide the width {width}; give --heads.")
    raw = {
        "model_type": "wav2vec2",
        "num_hidden_layers": len(layers),
        "hidden_size": width,
        "intermediate_size": inner,
        "num_attention_heads": heads,
        "conv_dim": [len(weight) for weight in weights],
        "conv_kernel": [weight.shape[2] for weight in weights],
        "conv_stride": _STRIDES[: len(weights)],
        "conv_bias": "feature_extractor.conv_layers.0.conv.bias" in tensors,
        "feat_extract_norm": "layer" if by_layer else "group",
        "do_stable_layer_norm": bool(said.get("layer_norm_first", by_layer)),
        "num_conv_pos_embeddings": positions[0].shape[2],
        "num_conv_pos_embedding_groups": width // positions[0].shape[1],
    }
    return network_config(raw, _layer(layer, len(layers), path), str(path))


def _settings(content: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return what a fairseq checkpoint says of its model; empty where it says nothing readable."""
    said = content.get("cfg") or content.get("args") or {}
    said = vars(said) if hasattr(said, "__dict__") and not isinstance(said, Mapping) else said
    model = said.get("model", said) if isinstance(said, Mapping) else {}
    return model if isinstance(model, Mapping) else {}


def _layer(layer: int | None, n_layers: int, source: Path) -> int:
    if layer is not None:
        return layer
    if n_layers == XLSR_LAYERS:
        return XLSR_LAYER
    raise CodecError(f"{source} has {n_layers} layers; say which of them gives the features: --layer.")


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CodecError(f"{path} cannot be read: {error}.") from None
    if not isinstance(content, dict):
        raise CodecError(f"{path} must hold a mapping.")
    return content
