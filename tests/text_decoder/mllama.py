"""A tiny random Mllama on disk, with the odd sizes of the published one: 8 embedding rows more than its head has."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tiny_models import make_tokenizer

IMAGE = "<|image|>"
CROSS_ATTENTION_LAYERS = [1, 3]
N_LAYERS = 5


def make_mllama(folder: Path, max_shard_size: str = "5GB") -> Path:
    """Write the model, its tokenizer with the image token, and the processor's files."""
    import torch
    from transformers import GenerationConfig, MllamaConfig, MllamaForConditionalGeneration

    tokenizer = make_tokenizer()
    text: dict[str, Any] = {
        "vocab_size": len(tokenizer),
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": N_LAYERS,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "cross_attention_layers": CROSS_ATTENTION_LAYERS,
        "max_position_embeddings": 4096,
        "rms_norm_eps": 1e-4,
        "rope_parameters": {
            "rope_type": "llama3",
            "rope_theta": 10_000.0,
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 64,
        },
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": [tokenizer.eos_token_id, tokenizer.convert_tokens_to_ids("<|eom_id|>")],
        "pad_token_id": tokenizer.pad_token_id,
    }
    vision = {
        "hidden_size": 16,
        "attention_heads": 2,
        "num_hidden_layers": 1,
        "num_global_layers": 1,
        "intermediate_size": 16,
        "image_size": 8,
        "patch_size": 4,
        "vision_output_dim": 32,
        "intermediate_layers_indices": [0],
        "max_num_tiles": 1,
        "supported_aspect_ratios": [[1, 1]],
    }
    tokenizer.add_special_tokens({"additional_special_tokens": [IMAGE]})
    config = MllamaConfig(text_config=text, vision_config=vision, image_token_index=len(tokenizer) - 1)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        model = MllamaForConditionalGeneration(config)
        # gates start at zero, where a layer that attends to images would change nothing even if it took part
        for name, parameter in model.named_parameters():
            if "gate" in name and parameter.numel() == 1:
                parameter.data.fill_(1.0)
    model.generation_config = GenerationConfig(eos_token_id=text["eos_token_id"], temperature=0.6, do_sample=True)
    folder.mkdir(parents=True)
    model.save_pretrained(folder, max_shard_size=max_shard_size)
    tokenizer.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps({"image_processor_type": "MllamaImageProcessor"}))
    return folder
