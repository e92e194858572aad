"""Tiny bases and random adapters of every kind, written by PEFT itself."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

VOCABULARY = 64
UNITS = {"count": 8, "first_id": 48}
TARGETS = ["q_proj", "v_proj", "down_proj"]
KINDS: dict[str, dict[str, Any]] = {
    "plain": {},
    "rslora": {"use_rslora": True},
    "dora": {"use_dora": True},
    "patterns": {
        "rank_pattern": {"q_proj": 2, r"layers\.1\.mlp\.down_proj": 8},
        "alpha_pattern": {"v_proj": 32, r"layers\.0\..*q_proj": 3},
    },
    "modules_to_save": {"modules_to_save": ["embed_tokens", "lm_head"]},
    "rows": {"trainable_token_indices": {"embed_tokens": [3, 48, 50], "lm_head": [1, 49]}},
    "embedding_lora": {"target_modules": ["embed_tokens", "q_proj"]},
    "dora_embedding": {"target_modules": ["embed_tokens", "q_proj"], "use_dora": True},
}
TIED_KINDS: dict[str, dict[str, Any]] = {
    "tied_plain": {},
    "tied_modules_to_save": {"modules_to_save": ["embed_tokens"], "ensure_weight_tying": True},
    "tied_rows": {"trainable_token_indices": {"embed_tokens": [3, 48, 50]}},
}


def make_base(
    folder: Path, dtype: torch.dtype = torch.float32, tie: bool = False, seed: int = 0, rows: int = VOCABULARY
) -> Path:
    """Write a random Llama without a tokenizer."""
    config = LlamaConfig(
        vocab_size=rows,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        tie_word_embeddings=tie,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        initializer_range=0.2,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        LlamaForCausalLM(config).to(dtype).save_pretrained(folder)
    return folder


def make_adapter(base: Path, folder: Path, seed: int = 1, units: bool = True, **options: Any) -> Path:
    """Write an adapter whose every trained number is random, and its card."""
    options = {"r": 4, "lora_alpha": 16, "target_modules": TARGETS, **options}
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(seed)
        model = get_peft_model(AutoModelForCausalLM.from_pretrained(base), LoraConfig(**options))
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.data += 0.2 * torch.randn_like(parameter)
        model.save_pretrained(folder, save_embedding_layers=False)
    from slm_plugin import card

    record = {"base": {"path": str(base), "fingerprint": card.fingerprint(base)}, "units": UNITS if units else None}
    card.write(folder, record)
    return folder


def merged(base: Path, *adapters: Path, dtype: torch.dtype = torch.float32) -> dict[str, torch.Tensor]:
    """Return what PEFT makes of a base and adapters, one after the other."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = AutoModelForCausalLM.from_pretrained(base, dtype=dtype)
        for folder in adapters:
            model = PeftModel.from_pretrained(model, folder).merge_and_unload()
    return {name: tensor.to(dtype) for name, tensor in model.state_dict().items()}


def edit_config(folder: Path, **changes: Any) -> None:
    """Change keys of an ``adapter_config.json``."""
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
