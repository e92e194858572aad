"""Layers and parts of models of several kinds, plain and wrapped by PEFT."""

from __future__ import annotations

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import (
    AutoModelForCausalLM,
    AutoModelForCTC,
    AutoModelForSeq2SeqLM,
    AutoModelForSpeechSeq2Seq,
    GPT2Config,
    LlamaConfig,
    MixtralConfig,
    T5Config,
    Wav2Vec2Config,
    WhisperConfig,
)

from slm_plugin.training.model_parts import Depth, depths, parts, stacks

SMALL = {"hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 2, "num_key_value_heads": 2}


def llama(**changes: object) -> torch.nn.Module:
    config = LlamaConfig(
        **{**SMALL, "vocab_size": 40, "num_hidden_layers": 3, "tie_word_embeddings": False, **changes}
    )
    return AutoModelForCausalLM.from_config(config)


def whisper() -> torch.nn.Module:
    config = WhisperConfig(
        vocab_size=40,
        d_model=32,
        encoder_layers=2,
        decoder_layers=4,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=48,
        decoder_ffn_dim=48,
        num_mel_bins=8,
        max_source_positions=20,
        max_target_positions=20,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        decoder_start_token_id=1,
    )
    return AutoModelForSpeechSeq2Seq.from_config(config)


MODELS = {
    "llama": llama,
    "mixtral": lambda: AutoModelForCausalLM.from_config(
        MixtralConfig(**SMALL, vocab_size=40, num_hidden_layers=2, num_local_experts=5)
    ),
    "gpt2": lambda: AutoModelForCausalLM.from_config(GPT2Config(vocab_size=40, n_embd=32, n_layer=3, n_head=2)),
    "t5": lambda: AutoModelForSeq2SeqLM.from_config(
        T5Config(vocab_size=40, d_model=32, d_kv=16, d_ff=48, num_layers=2, num_decoder_layers=3, num_heads=2)
    ),
    "whisper": whisper,
    "wav2vec2": lambda: AutoModelForCTC.from_config(
        Wav2Vec2Config(
            vocab_size=10,
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=48,
            conv_dim=(16, 16, 16),
            conv_kernel=(3, 3, 3),
            conv_stride=(2, 2, 2),
            num_conv_pos_embeddings=4,
            num_conv_pos_embedding_groups=2,
        )
    ),
}


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("llama", ["model.layers"]),
        ("mixtral", ["model.layers"]),
        ("gpt2", ["transformer.h"]),
        ("t5", ["encoder.block", "decoder.block"]),
        ("whisper", ["model.encoder.layers", "model.decoder.layers"]),
    ],
)
def test_the_layers_are_found_without_knowing_the_model(kind, expected):
    assert stacks(MODELS[kind]()) == expected


@pytest.mark.parametrize("kind", MODELS)
def test_every_parameter_has_one_part_and_one_height(kind):
    model = MODELS[kind]()
    names = {name for name, _ in model.named_parameters()}
    assert parts(model).keys() == depths(model).keys() == names
    assert all(0 <= depth.layer <= depth.count + 1 for depth in depths(model).values())


def test_a_llama_is_divided_as_its_names_say():
    model = llama()
    found, heights = parts(model), depths(model)
    for name in found:
        if "embed_tokens" in name:
            assert (found[name], heights[name]) == ("embeddings", Depth(0, 3))
        elif "lm_head" in name:
            assert (found[name], heights[name]) == ("head", Depth(4, 3))
        elif name == "model.norm.weight":
            assert (found[name], heights[name]) == ("others", Depth(4, 3))
        else:
            assert heights[name] == Depth(int(name.split(".")[2]) + 1, 3)
            part = "attention" if "self_attn" in name else "others" if "norm" in name else "feed_forward"
            assert found[name] == part


def test_what_surrounds_the_two_stacks_of_an_encoder_decoder_counts_to_the_nearer():
    heights = depths(whisper())
    assert heights["model.encoder.conv1.weight"] == Depth(0, 2)
    assert heights["model.encoder.layer_norm.weight"] == Depth(3, 2)
    assert heights["model.decoder.embed_positions.weight"] == Depth(0, 4)
    assert heights["model.decoder.layer_norm.weight"] == Depth(5, 4)
    assert heights["model.decoder.layers.3.fc1.weight"] == Depth(4, 4)
    found = parts(whisper())
    assert found["model.decoder.layers.3.fc1.weight"] == "feed_forward"
    assert found["model.decoder.layers.3.encoder_attn.k_proj.weight"] == "attention"
    assert found["model.encoder.conv1.weight"] == "others"


def test_an_adapter_and_what_it_trains_in_full_are_where_their_weights_are():
    config = LoraConfig(target_modules=["q_proj", "down_proj"], modules_to_save=["embed_tokens", "lm_head"], r=2)
    model = get_peft_model(llama(), config)
    found, heights = parts(model), depths(model)
    trained = {name: (found[name], heights[name].layer) for name, p in model.named_parameters() if p.requires_grad}
    prefix = "base_model.model.model"
    assert trained[f"{prefix}.layers.1.self_attn.q_proj.lora_A.default.weight"] == ("attention", 2)
    assert trained[f"{prefix}.layers.2.mlp.down_proj.lora_B.default.weight"] == ("feed_forward", 3)
    assert trained[f"{prefix}.embed_tokens.modules_to_save.default.weight"] == ("embeddings", 0)
    assert trained["base_model.model.lm_head.modules_to_save.default.weight"] == ("head", 4)


def test_rows_trained_by_an_adapter_are_embeddings_too():
    config = LoraConfig(target_modules=["q_proj"], trainable_token_indices={"embed_tokens": [1], "lm_head": [1]}, r=2)
    model = get_peft_model(llama(), config)
    found = parts(model)
    rows = {found[name] for name, p in model.named_parameters() if p.requires_grad and "lora" not in name}
    assert rows == {"embeddings", "head"}


def test_a_model_without_layers_has_no_heights():
    assert depths(torch.nn.Linear(2, 2)) == {}
    assert set(parts(torch.nn.Linear(2, 2)).values()) == {"others"}
