"""The text decoder of an Mllama written as a Llama, tensor by tensor.

An Mllama (Llama 3.2 Vision) is a Llama between whose layers others attend to an image. Without an image those are
passed over, so the Llama of the remaining layers computes the same. It loads wherever a Llama does.

Source: Grattafiori et al. 2024, arXiv 2407.21783, section 7.2: the image adapter's cross-attention layers
are added to a Llama 3.1 whose own weights stay frozen.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slm_plugin import card
from slm_plugin.errors import WeightsError
from slm_plugin.text_decoder.layout import EMBEDDING, DecoderLayout, find_layout, text_config
from slm_plugin.text_decoder.tokenizer import carry_over
from slm_plugin.weights.checkpoint import Checkpoint
from slm_plugin.weights.staging import staged
from slm_plugin.weights.writer import CheckpointWriter, PlannedTensor

MAX_SHARD_BYTES = 5_000_000_000
_SHARED_KEYS = (
    "hidden_size",
    "intermediate_size",
    "num_attention_heads",
    "num_key_value_heads",
    "hidden_act",
    "max_position_embeddings",
    "initializer_range",
    "rms_norm_eps",
    "rope_parameters",
    "use_cache",
    "bos_token_id",
    "eos_token_id",
    "pad_token_id",
)


@dataclass(frozen=True)
class Extracted:
    """What was written.

    Attributes:
        folder: The Llama.
        layout: Which tensors it was made from.
        n_parameters: Its weights.
        tokens_left_out: Tokens that the tokenizer lost.
    """

    folder: Path
    layout: DecoderLayout
    n_parameters: int
    tokens_left_out: tuple[str, ...]


def extract_text_decoder(model: Path, destination: Path, max_shard_bytes: int | None = MAX_SHARD_BYTES) -> Extracted:
    """Write the text decoder of an Mllama as a ``LlamaForCausalLM`` with tokenizer and settings.

    No more than one tensor is in memory, and nothing appears in ``destination`` before all of it is written. Rows of
    the input embedding that the head lacks (Mllama has 8 for the image token) and their tokens are left out.

    Args:
        model: Folder of the Mllama, as ``save_pretrained`` or the hub has it.
        destination: Folder of the Llama.
        max_shard_bytes: Size at which the next file of weights begins; None writes one file.

    Returns:
        What was taken.

    Raises:
        WeightsError: ``model`` is not an Mllama, or is missing or damaged in parts, or the disk is full.
        VocabularyError: Its tokenizer cannot be read, or has ordinary tokens without a row.
    """
    if destination.resolve() == model.resolve():
        raise WeightsError(f"{destination} is the model itself; give another folder for its text decoder.")
    config = _text_config(model)
    checkpoint = Checkpoint(model)
    layout = find_layout(checkpoint, config.num_hidden_layers, config.cross_attention_layers)
    planned = [_planned(name, original, checkpoint, layout.rows) for name, original in layout.names.items()]
    with staged(destination) as partial:
        with CheckpointWriter(partial, planned, max_shard_bytes) as writer:
            for tensor in planned:
                found = checkpoint.tensor(layout.names[tensor.name])
                writer.write(tensor.name, found[: layout.rows] if tensor.name == EMBEDDING else found)
        tokens = carry_over(model, partial, layout.rows)
        _write_config(config, layout, planned[0], partial)
        origin = {"path": str(model), "fingerprint": card.fingerprint(model)}
        card.write(partial, {"text_decoder_of": {**origin, "layers": layout.kept_layers, "tokens_left_out": tokens}})
    n_parameters = sum(tensor.n_bytes // tensor.dtype.itemsize for tensor in planned)
    return Extracted(destination, layout, n_parameters, tuple(tokens))


def _planned(name: str, original: str, checkpoint: Checkpoint, rows: int) -> PlannedTensor:
    shape = checkpoint.shape(original)
    return PlannedTensor(name, (rows, *shape[1:]) if name == EMBEDDING else shape, checkpoint.dtype(original))


def _text_config(model: Path) -> Any:
    """Return transformers' configuration of the text decoder, with the defaults that the file leaves out."""
    path = model / "config.json"
    if not path.is_file():
        raise WeightsError(f"{model} is not a model folder: it has no config.json.")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise WeightsError(f"{path} is damaged: {error}.") from None
    from transformers import MllamaTextConfig

    found = text_config(content, model)
    return MllamaTextConfig(**{key: value for key, value in found.items() if key != "model_type"})


def _write_config(config: Any, layout: DecoderLayout, embedding: PlannedTensor, folder: Path) -> None:
    from transformers import LlamaConfig

    llama = LlamaConfig(
        **{key: getattr(config, key) for key in _SHARED_KEYS},
        vocab_size=layout.rows,
        num_hidden_layers=len(layout.kept_layers),
        attention_dropout=config.dropout,
        # an Mllama's two embeddings differ in height, so they are never one matrix
        tie_word_embeddings=False,
        architectures=["LlamaForCausalLM"],
        dtype=str(embedding.dtype).removeprefix("torch."),
    )
    llama.save_pretrained(folder)
