"""Where the text decoder's weights are in an Mllama checkpoint, and what they are called in a Llama.

Checkpoints on the hub, those that transformers 4 and 5 write and those of the text model alone differ in what stands
before the names, so that is read off the input embedding, of which there is one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from slm_plugin.errors import WeightsError
from slm_plugin.weights.checkpoint import Checkpoint

EMBEDDING = "model.embed_tokens.weight"
HEAD = "lm_head.weight"
_EMBEDDING_END = "embed_tokens.weight"
_OF_A_LAYER = (
    "self_attn.q_proj",
    "self_attn.k_proj",
    "self_attn.v_proj",
    "self_attn.o_proj",
    "mlp.gate_proj",
    "mlp.up_proj",
    "mlp.down_proj",
    "input_layernorm",
    "post_attention_layernorm",
)
_KINDS = ("mllama", "mllama_text_model")


@dataclass(frozen=True)
class DecoderLayout:
    """Which tensors are taken, and how.

    Attributes:
        names: Name in the checkpoint by name in the Llama, in the order of the model.
        rows: Rows of the vocabulary that are kept: those that the output embedding has.
        kept_layers: The layers that attend to text, by their number in the checkpoint; their place here is
            their number in the Llama.
        left_out_layers: The layers that attend to images.
    """

    names: Mapping[str, str]
    rows: int
    kept_layers: tuple[int, ...]
    left_out_layers: tuple[int, ...]


def text_config(config: Mapping[str, Any], where: object) -> Mapping[str, Any]:
    """Return the part of an Mllama's ``config.json`` that describes its text decoder.

    Raises:
        WeightsError: The configuration is of another kind of model.
    """
    kind = config.get("model_type")
    if kind not in _KINDS:
        raise WeightsError(f"{where} is a model of the kind {kind!r}, not an Mllama; accepted: {', '.join(_KINDS)}.")
    found: Mapping[str, Any] = config.get("text_config") or {} if kind == "mllama" else config
    return found


def find_layout(checkpoint: Checkpoint, n_layers: int, cross_attention_layers: Sequence[int]) -> DecoderLayout:
    """Find the text decoder's tensors.

    Args:
        checkpoint: The weights of an Mllama.
        n_layers: Layers of its text decoder, those that attend to images included.
        cross_attention_layers: Numbers of those.

    Raises:
        WeightsError: Tensors of the text decoder are missing, or embedding and head do not fit together.
    """
    held = checkpoint.names()
    embeddings = [name for name in held if re.search(rf"(^|\.){_EMBEDDING_END}$", name)]
    if len(embeddings) != 1:
        raise WeightsError(
            f"{checkpoint.folder} holds {len(embeddings)} tensors called ...{_EMBEDDING_END}; an Mllama holds one."
        )
    prefix = embeddings[0].removesuffix(_EMBEDDING_END)
    heads = [name for name in (HEAD, f"language_model.{HEAD}") if name in held]
    if not heads:
        raise WeightsError(f"{checkpoint.folder} lacks the output embedding {HEAD}, which an Mllama always has.")
    left_out = tuple(sorted(set(cross_attention_layers)))
    kept = tuple(number for number in range(n_layers) if number not in left_out)
    names = {EMBEDDING: embeddings[0]}
    for number, original in enumerate(kept):
        for part in _OF_A_LAYER:
            names[f"model.layers.{number}.{part}.weight"] = f"{prefix}layers.{original}.{part}.weight"
    names |= {"model.norm.weight": f"{prefix}norm.weight", HEAD: heads[0]}
    missing = sorted(set(names.values()) - set(held))
    if missing:
        raise WeightsError(
            f"{checkpoint.folder} lacks {len(missing)} tensor(s) of its text decoder, {missing[0]!r} among them."
        )
    rows, height = checkpoint.shape(heads[0])[0], checkpoint.shape(embeddings[0])[0]
    if height < rows:
        raise WeightsError(f"{checkpoint.folder}: its head has {rows} rows, its input embedding only {height}.")
    return DecoderLayout(names, rows, kept, left_out)
