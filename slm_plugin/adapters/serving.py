"""Whether vLLM takes an adapter as plain LoRA and computes with it what PEFT does; every reason why not.

Source: vLLM 0.26, ``vllm/lora/peft_helper.py``, ``lora_model.py``, ``utils.py`` and ``config/lora.py``.
"""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

from slm_plugin import card
from slm_plugin.adapters.check import require_fits, require_same_fingerprint
from slm_plugin.adapters.lora import CONFIG_FILE, WEIGHTS_FILE, LoraAdapter, load_config, unsupported
from slm_plugin.errors import SlmError
from slm_plugin.weights.checkpoint import Checkpoint

MAX_RANK = 512
"""The largest ``--max-lora-rank``."""

MAX_VOCABULARY = 258_048
"""The largest vocabulary of a base with ``--enable-lora``."""

EMBEDDINGS = ("embed_tokens", "lm_head")
EMBEDDING_ARCHITECTURES = (
    "Exaone4ForCausalLM",
    "GraniteForCausalLM",
    "LlamaForCausalLM",
    "MistralForCausalLM",
    "MixtralForCausalLM",
    "NemotronForCausalLM",
    "Qwen3ForCausalLM",
    "Qwen3MoeForCausalLM",
    "SolarForCausalLM",
)
"""Architectures whose embeddings and head may have a low-rank update; elsewhere only linear layers may."""


def refusals(folder: Path, base: Path | None = None) -> list[str]:
    """Return why vLLM would refuse an adapter, or compute something else than PEFT; empty where it takes it.

    Args:
        folder: The adapter.
        base: The model that it will be served on; without one, what depends on the base is not looked at.

    Raises:
        WeightsError: The folder holds no adapter.
    """
    config = load_config(folder)
    reason = unsupported(config)
    if reason:
        return [reason]
    if not (folder / WEIGHTS_FILE).is_file():
        return [f"it has no {WEIGHTS_FILE}"]
    adapter = LoraAdapter(folder)
    found = [*_features(adapter), *_ranks(adapter)]
    if base is not None:
        found += _against(adapter, base)
    for key in adapter.kinds():
        try:
            adapter.read(key)
        except SlmError as error:
            found.append(str(error).rstrip("."))
            break
    return found


def embeddings_not_taken(adapter: LoraAdapter, base: Path) -> list[str]:
    """Return the embeddings and heads with a low-rank update that vLLM has no place for on this base."""
    named = [name for name in adapter.modules() if name.split(".")[-2] in EMBEDDINGS]
    architectures = _read(base / "config.json").get("architectures") or []
    return [] if set(architectures) & set(EMBEDDING_ARCHITECTURES) else named


def has_one_scale(adapter: LoraAdapter) -> bool:
    """Tell whether the one ``lora_alpha`` and ``r`` of the configuration, which vLLM reads, hold for all modules."""
    plain = {"alpha_pattern": None, "rank_pattern": None}
    stated = copy.copy(adapter)
    stated.config = {**adapter.config, **plain}
    return all(adapter.scale(name) == stated.scale(name) for name in adapter.modules())


def _features(adapter: LoraAdapter) -> list[str]:
    config, found = adapter.config, []
    for key in ("r", "lora_alpha", "target_modules"):
        if config.get(key) is None:
            found.append(f"{CONFIG_FILE} lacks {key}")
    if config.get("modules_to_save") or adapter.replaced():
        names = ", ".join(adapter.replaced() or config["modules_to_save"])
        found.append(f"weights are trained in full (modules_to_save): {names}")
    if adapter.row_names() or config.get("trainable_token_indices"):
        found.append(f"rows are trained in full (trainable_token_indices): {', '.join(adapter.row_names())}")
    if config.get("use_dora") or adapter.is_decomposed:
        found.append("it is DoRA (use_dora)")
    if config.get("bias", "none") != "none":
        found.append(f"biases are trained (bias: {config['bias']})")
    if not adapter.modules():
        found.append("it has no low-rank update")
    return found


def _ranks(adapter: LoraAdapter) -> list[str]:
    found = []
    ranks = {name: adapter.rank(name) for name in adapter.modules()}
    stated = adapter.config.get("r") or 0
    largest = max(ranks.values(), default=stated)
    if max(largest, stated) > MAX_RANK:
        found.append(f"rank {max(largest, stated)} is above {MAX_RANK}, the largest --max-lora-rank")
    elif largest > stated:
        found.append(f"a module has rank {largest}, above r ({stated}), which is all that vLLM checks")
    if not has_one_scale(adapter):
        found.append("modules have scales of their own (alpha_pattern, rank_pattern); vLLM reads lora_alpha / r only")
    return found


def _against(adapter: LoraAdapter, base: Path) -> list[str]:
    found = []
    try:
        require_same_fingerprint(adapter.folder, base)
    except SlmError as error:
        found.append(str(error).rstrip("."))
    weights = Checkpoint(base)
    adapter = adapter.aligned(weights.names())
    try:
        require_fits(adapter, weights)
    except SlmError as error:
        return [*found, str(error).rstrip(".")]
    odd = [name for name in adapter.modules() if len(weights.shape(name)) != 2]
    if odd:
        found.append(f"layers other than linear ones have an update: {', '.join(odd[:3])}")
    embeddings = embeddings_not_taken(adapter, base)
    if embeddings:
        found.append(f"vLLM takes no update of {', '.join(embeddings)} for this architecture")
    vocabulary = _read(base / "config.json").get("vocab_size") or 0
    if vocabulary > MAX_VOCABULARY:
        found.append(f"the base has {vocabulary} tokens; with LoRA vLLM takes {MAX_VOCABULARY}")
    taller = max((adapter.replacement_shape(name)[0] for name in adapter.replaced()), default=0)
    units = card.read(adapter.folder).get("units")
    last = units.get("first_id", 0) + units.get("count", 0) if units else 0
    if 0 < vocabulary < taller:
        found.append(f"it brings {taller - vocabulary} rows that the vocabulary of its base ({vocabulary}) lacks")
    elif 0 < vocabulary < last:
        found.append(f"its units end at token {last}, the base has {vocabulary}: give the base with units")
    elif units and _has_tokenizer(base) and not _same_units(units, card.units_of(base)):
        first = units.get("first_id", 0)
        found.append(f"the base has no units at tokens {first}..{last - 1}: give the base with units")
    return found


def _has_tokenizer(folder: Path) -> bool:
    return (folder / "tokenizer_config.json").is_file()


def _same_units(one: dict[str, Any], other: dict[str, Any] | None) -> bool:
    return other is not None and all(one.get(key) == other.get(key) for key in ("first_id", "count"))


def _read(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return found
