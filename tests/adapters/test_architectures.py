"""Adapters of models other than a plain decoder, beside PEFT's merge."""

from __future__ import annotations

import warnings

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    MllamaConfig,
    MllamaForConditionalGeneration,
    Wav2Vec2Config,
    Wav2Vec2ForCTC,
    WhisperConfig,
    WhisperForConditionalGeneration,
)

from slm_plugin.adapters.discount import write_discounted
from slm_plugin.adapters.folded import FoldedCheckpoint
from slm_plugin.adapters.lora import LoraAdapter
from slm_plugin.weights.checkpoint import Checkpoint


def whisper():
    sizes = {f"{side}_{name}": n for side in ("encoder", "decoder") for name, n in (("layers", 1), ("ffn_dim", 32))}
    heads = {"encoder_attention_heads": 2, "decoder_attention_heads": 2}
    ids = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1}
    config = WhisperConfig(vocab_size=50, d_model=16, num_mel_bins=8, **sizes, **heads, **ids)
    return WhisperForConditionalGeneration(config)


def recogniser():
    config = Wav2Vec2Config(
        vocab_size=20,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        conv_dim=(8, 8),
        conv_kernel=(10, 3),
        conv_stride=(5, 2),
        num_conv_pos_embeddings=4,
        num_conv_pos_embedding_groups=2,
    )
    return Wav2Vec2ForCTC(config)


def gpt2():
    ids = {"bos_token_id": 1, "eos_token_id": 2}
    return GPT2LMHeadModel(GPT2Config(vocab_size=50, n_embd=16, n_layer=1, n_head=2, n_positions=32, **ids))


def vision_llama():
    text = {
        "vocab_size": 64,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "cross_attention_layers": [1],
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e4},
    }
    vision = {
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 1,
        "num_global_layers": 1,
        "attention_heads": 2,
        "image_size": 28,
        "patch_size": 14,
        "vision_output_dim": 64,
        "intermediate_layers_indices": [0],
        "max_num_tiles": 1,
        "supported_aspect_ratios": [[1, 1]],
    }
    return MllamaForConditionalGeneration(MllamaConfig(vision_config=vision, text_config=text))


MODELS = {
    "whisper": (whisper, {"target_modules": ["q_proj", "fc1", "conv1"], "modules_to_save": ["layer_norm"]}),
    "recogniser": (recogniser, {"target_modules": ["q_proj", "v_proj"], "modules_to_save": ["lm_head"]}),
    "gpt2": (gpt2, {"target_modules": ["c_attn", "c_fc"], "fan_in_fan_out": True}),
    "gpt2_dora": (gpt2, {"target_modules": ["c_attn", "c_fc"], "fan_in_fan_out": True, "use_dora": True}),
    "vision_llama": (vision_llama, {"target_modules": ["q_proj"], "alpha_pattern": {"model.language_model.*": 8}}),
    "vision_llama_rows": (
        vision_llama,
        {"target_modules": ["v_proj"], "modules_to_save": ["lm_head"], "trainable_token_indices": [3, 5]},
    ),
    "vision_llama_dora": (vision_llama, {"target_modules": ["q_proj"], "use_dora": True}),
}


@pytest.mark.parametrize("factor", [1.0, 0.5])
@pytest.mark.parametrize("kind", MODELS)
def test_the_folded_weights_are_those_that_peft_merges(kind, factor, tmp_path):
    make, options = MODELS[kind]
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(0)
        model = make()
        model.save_pretrained(tmp_path / "base")
        adapted = get_peft_model(model, LoraConfig(r=4, lora_alpha=16, **options))
        for parameter in adapted.parameters():
            if parameter.requires_grad:
                parameter.data += 0.2 * torch.randn_like(parameter)
        adapted.save_pretrained(tmp_path / "adapter", save_embedding_layers=False)
        adapter = LoraAdapter(tmp_path / "adapter")
        write_discounted(adapter, tmp_path / "copy", factor, lambda: Checkpoint(tmp_path / "base"))
        fresh = type(model).from_pretrained(tmp_path / "base")
        PeftModel.from_pretrained(fresh, tmp_path / "copy").merge_and_unload().save_pretrained(tmp_path / "merged")
    expected = load_file(tmp_path / "merged" / "model.safetensors")
    folded = FoldedCheckpoint(Checkpoint(tmp_path / "base"), adapter, factor)
    assert folded.names() == sorted(expected)
    for name in folded.names():
        torch.testing.assert_close(folded.tensor(name), expected[name], rtol=1e-5, atol=2e-6, msg=name)
    base = Checkpoint(tmp_path / "base")
    n_changed = sum(not torch.equal(base.tensor(name), expected[name]) for name in base.names())
    assert n_changed >= len(adapter.modules()) + len(adapter.row_names())
