"""The speech network up to the layer that is needed, from weights whose every tensor is accounted for."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import nn

from slm_plugin.errors import CodecError, suggest

FAMILIES = ("hubert", "wav2vec2", "wavlm")
"""``model_type`` of the networks that are known to work."""

_SHAPE_KEYS = (
    "model_type",
    "hidden_size",
    "num_attention_heads",
    "intermediate_size",
    "hidden_act",
    "layer_norm_eps",
    "do_stable_layer_norm",
    "feat_extract_norm",
    "feat_extract_activation",
    "conv_dim",
    "conv_stride",
    "conv_kernel",
    "conv_bias",
    "num_conv_pos_embeddings",
    "num_conv_pos_embedding_groups",
)
_OPTIONAL_KEYS = ("feat_proj_layer_norm", "conv_pos_batch_norm", "num_buckets", "max_bucket_distance")

# what pre-training or recognition needs and features do not
_UNUSED = re.compile(
    r"^(masked_spec_embed|quantizer\.|project_hid\.|project_q\.|lm_head\.|final_proj\.|label_embs_concat|adapter\."
    r"|dropout_features\.)"
)


def network_config(raw: Mapping[str, Any], layer: int, where: str) -> dict[str, Any]:
    """Return what of a transformers ``config.json`` decides the features of a layer.

    Raises:
        CodecError: The network is of another family, a key is missing, or it has too few layers.
    """
    family = raw.get("model_type")
    if family not in FAMILIES:
        raise CodecError(f"{where}: model_type {family!r} is not known here. {suggest(family, FAMILIES, 'Known')}")
    # transformers leaves out what equals its defaults
    whole = _config_class(cast(str, family))(**{key: value for key, value in raw.items() if key != "model_type"})
    n_layers = whole.num_hidden_layers
    if not 1 <= layer <= n_layers:
        raise CodecError(f"{where}: the network has {n_layers} layers; layer {layer} is not one of 1..{n_layers}.")
    kept = {key: getattr(whole, key) for key in _SHAPE_KEYS if key != "model_type"}
    kept |= {key: getattr(whole, key) for key in _OPTIONAL_KEYS if hasattr(whole, key)}
    kept = {key: list(value) if isinstance(value, tuple) else value for key, value in kept.items()}
    return {"model_type": family, "num_hidden_layers": layer, **kept}


def build_network(config: Mapping[str, Any]) -> nn.Module:
    """Return transformers' network of a config of :func:`network_config`, without memory for its weights.

    The LayerNorm behind the last layer is left out: the feature of layer L is what flows from layer L to
    the next, ``hidden_states[L]`` of the whole network.
    """
    from transformers import AutoModel

    quiet = dict.fromkeys(
        ("hidden_dropout", "attention_dropout", "activation_dropout", "feat_proj_dropout", "layerdrop"), 0.0
    )
    # without masks in training there is no embedding of a mask either
    masks = {"mask_time_prob": 0.0, "mask_feature_prob": 0.0, "apply_spec_augment": False}
    family = config["model_type"]
    shape = {key: value for key, value in config.items() if key != "model_type"}
    with torch.device("meta"):
        network = AutoModel.from_config(_config_class(family)(**shape, **quiet, **masks))
    if config["do_stable_layer_norm"]:
        network.encoder.layer_norm = nn.Identity()
    return cast(nn.Module, network.eval())


def fit_names(tensors: Mapping[str, torch.Tensor], config: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """Return the tensors, shape unchanged, under the names of :func:`build_network`, without those of other parts.

    Takes checkpoints of the bare network and of networks with a head, with either form of weight norm.
    """
    prefix = f"{config['model_type']}."
    stable, n_layers = config["do_stable_layer_norm"], config["num_hidden_layers"]
    found = {}
    for name, tensor in tensors.items():
        name = name.removeprefix(prefix)
        layer = re.match(r"encoder\.layers\.(\d+)\.", name)
        beyond = layer is not None and int(layer[1]) >= n_layers
        if beyond or _UNUSED.match(name) or (stable and name.startswith("encoder.layer_norm.")):
            continue
        name = re.sub(r"conv\.weight_g$", "conv.parametrizations.weight.original0", name)
        name = re.sub(r"conv\.weight_v$", "conv.parametrizations.weight.original1", name)
        found[name] = tensor
    return found


def fill(network: nn.Module, tensors: Mapping[str, torch.Tensor], where: str) -> None:
    """Give a network its weights, each of the shape of its own of that name; none may be missing or left over.

    Raises:
        CodecError: Says which tensors.
    """
    wanted = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    problems = [f"{name} is missing" for name in wanted if name not in tensors]
    problems += [f"{name} belongs nowhere" for name in tensors if name not in wanted]
    problems += [
        f"{name} has shape {tuple(tensors[name].shape)} instead of {shape}"
        for name, shape in wanted.items()
        if name in tensors and tuple(tensors[name].shape) != shape
    ]
    if problems:
        more = f" and {len(problems) - 5} more" if len(problems) > 5 else ""
        raise CodecError(f"{where}: the weights do not fit the network: {'; '.join(problems[:5])}{more}.")
    network.load_state_dict(dict(tensors), strict=True, assign=True)
    network.requires_grad_(False)


def settle_weight_norm(network: nn.Module) -> None:
    """Multiply the weight norm of the positional convolution out once, where it was done in every call.

    The weight is the same to the bit: 13 million numbers in the 1B XLS-R.
    """
    from torch.nn.utils.parametrize import is_parametrized, remove_parametrizations

    for module in network.modules():
        if isinstance(module, nn.Conv1d) and is_parametrized(module, "weight"):
            remove_parametrizations(module, "weight")
    network.requires_grad_(False)


def _config_class(family: str) -> Any:
    from transformers import CONFIG_MAPPING

    return CONFIG_MAPPING[family]
