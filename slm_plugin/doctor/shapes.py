"""The shape of a language model, from its folder or from its name."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from slm_plugin.errors import WeightsError, suggest
from slm_plugin.vocabulary import unit_token

PADDING = 64
"""The host pads a grown vocabulary to a multiple of this."""


@dataclass(frozen=True)
class Shapes:
    """What decides size and work of a model.

    Attributes:
        layers: Layers.
        hidden: Width.
        inner: Width inside the MLP.
        heads: Attention heads.
        kv_heads: Heads of keys and values.
        tokens: Tokens of its tokenizer.
        rows: Rows of its embedding.
        tied: Whether input and output embeddings are one matrix.
    """

    layers: int
    hidden: int
    inner: int
    heads: int
    kv_heads: int
    tokens: int
    rows: int
    tied: bool

    @property
    def key_width(self) -> int:
        """Width of keys and values."""
        return self.hidden // self.heads * self.kv_heads

    def with_units(self, count: int) -> Shapes:
        """Return the shape with unit tokens, rows padded as the host does when it adds any."""
        if not count:
            return self
        tokens = self.tokens + count
        rows = max(self.rows, -(-tokens // PADDING) * PADDING)
        return replace(self, tokens=tokens, rows=rows)


KNOWN = {
    "meta-llama/Llama-3.2-1B-Instruct": Shapes(16, 2048, 8192, 32, 8, 128_256, 128_256, True),
    "meta-llama/Llama-3.2-3B-Instruct": Shapes(28, 3072, 8192, 24, 8, 128_256, 128_256, True),
    "meta-llama/Llama-3.1-8B-Instruct": Shapes(32, 4096, 14_336, 32, 8, 128_256, 128_256, False),
    "meta-llama/Llama-3.2-11B-Vision-Instruct": Shapes(32, 4096, 14_336, 32, 8, 128_256, 128_256, False),
    "Qwen/Qwen2.5-0.5B-Instruct": Shapes(24, 896, 4864, 14, 2, 151_665, 151_936, True),
    "Qwen/Qwen2.5-1.5B-Instruct": Shapes(28, 1536, 8960, 12, 2, 151_665, 151_936, True),
    "Qwen/Qwen2.5-7B-Instruct": Shapes(28, 3584, 18_944, 28, 4, 151_665, 152_064, False),
}
"""Models of the recipes and their siblings; of the vision model, the text decoder that is trained."""


def find_shapes(model: str, recipe: Path, units: int) -> Shapes:
    """Return the shape of a recipe's model, units included.

    A model that is not there yet is looked for among the export YAMLs beside the recipe: one of them says
    what it will be made from.

    Raises:
        WeightsError: Neither the folder nor the name is known.
    """
    folder = Path(model)
    if (folder / "config.json").is_file():
        found, has_units = _of_folder(folder, units)
        return found if has_units else found.with_units(units)
    if model in KNOWN:
        return KNOWN[model].with_units(units)
    for path in sorted(recipe.parent.glob("*.yaml")):
        content = _mapping(path)
        if content.get("export_dir") == model and content.get("model_name_or_path") not in (None, model):
            return find_shapes(str(content["model_name_or_path"]), recipe, units)
    raise WeightsError(
        f"{model} is not a folder with a config.json, and no YAML beside {recipe.name} exports it: give the model"
        f" that it will be made from as --model. {suggest(model, KNOWN, 'Known names')}"
    )


def from_config(config: Mapping[str, Any], tokens: int | None = None) -> Shapes:
    """Return the shape that a ``config.json`` describes.

    Raises:
        WeightsError: It lacks a size.
    """
    inner = config.get("text_config", config)
    try:
        heads = int(inner["num_attention_heads"])
        rows = int(inner["vocab_size"])
        return Shapes(
            layers=int(inner["num_hidden_layers"]),
            hidden=int(inner["hidden_size"]),
            inner=int(inner["intermediate_size"]),
            heads=heads,
            kv_heads=int(inner.get("num_key_value_heads") or heads),
            tokens=rows if tokens is None else tokens,
            rows=rows,
            tied=bool(inner.get("tie_word_embeddings", config.get("tie_word_embeddings", False))),
        )
    except KeyError as error:
        raise WeightsError(f"config.json lacks {error}; it is not that of a decoder of text.") from None


def _of_folder(folder: Path, units: int) -> tuple[Shapes, bool]:
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        path = folder / "tokenizer.json"
        content = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    except ValueError as error:
        raise WeightsError(f"{folder}: config.json or tokenizer.json is not valid JSON ({error}).") from None
    names = {token["content"] for token in content.get("added_tokens", [])}
    vocabulary = content.get("model", {}).get("vocab", {})
    tokens = len({*vocabulary, *names}) if isinstance(vocabulary, Mapping) and vocabulary else None
    return from_config(config, tokens), units > 0 and unit_token(units - 1) in names


def _mapping(path: Path) -> Mapping[str, Any]:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError):
        return {}
    return content if isinstance(content, Mapping) else {}
