"""Model folders whose configuration ties the head to the input embeddings, and whether their weights agree.

transformers keeps two different matrices apart whatever ``tie_word_embeddings`` says; vLLM and others then read one
of them for both. A folder of this kind must say ``tie_word_embeddings: false``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from slm_plugin.weights.checkpoint import Checkpoint

_USUAL = {"lm_head.weight": "model.embed_tokens.weight"}


def differing_matrices(folder: Path) -> tuple[str, str] | None:
    """Return the names of input embeddings and head if a folder ties them and holds two different ones.

    Args:
        folder: A model folder in safetensors form.

    Raises:
        WeightsError: A file is missing or damaged.
    """
    config = _config(folder)
    if not _ties(config):
        return None
    weights = Checkpoint(folder)
    for head, table in _pairs(config):
        # folders of several modalities are saved under other prefixes than their modules have
        tables = [name for name in weights.names() if _ends_in(name, ".".join(table.split(".")[-2:]))]
        for name in weights.names():
            same_shape = [other for other in tables if weights.shape(other) == weights.shape(name)]
            if not _ends_in(name, head) or not same_shape:
                continue
            if not any(torch.equal(weights.tensor(name), weights.tensor(other)) for other in same_shape):
                return same_shape[0], name
    return None


def untie_differing(folder: Path) -> bool:
    """Set ``tie_word_embeddings: false`` in a folder that holds two different matrices; return whether it did.

    Raises:
        WeightsError: A file is missing or damaged.
    """
    if differing_matrices(folder) is None:
        return False
    config = _config(folder)
    for part in (config, config.get("text_config")):
        if isinstance(part, dict):
            part["tie_word_embeddings"] = False
    text = json.dumps(config, indent=2, ensure_ascii=False)
    (folder / "config.json").write_text(text + "\n", encoding="utf-8")
    return True


def _config(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    return found


def _ties(config: Mapping[str, Any]) -> bool:
    """Tell whether a configuration ties; a file may leave out what its class has as the default."""
    from transformers import AutoConfig

    inner = config.get("text_config")
    for part in (config, inner if isinstance(inner, Mapping) else {}):
        if "tie_word_embeddings" in part:
            return bool(part["tie_word_embeddings"])
    try:
        known = AutoConfig.for_model(**config)
    except (KeyError, TypeError, ValueError):
        return False
    return bool(getattr(known.get_text_config(), "tie_word_embeddings", False))


def _pairs(config: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the weights that the model's class ties, as head and input embeddings."""
    import transformers

    kind = getattr(transformers, str((config.get("architectures") or [""])[0]), None)
    keys = getattr(kind, "_tied_weights_keys", None)
    found = keys if isinstance(keys, Mapping) else _USUAL
    return [(head, table) for head, table in found.items() if head.endswith(".weight")]


def _ends_in(name: str, tail: str) -> bool:
    return name == tail or name.endswith(f".{tail}")
