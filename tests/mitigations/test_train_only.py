"""Freezing all but some parts."""

from __future__ import annotations

import itertools
from types import SimpleNamespace

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, LlamaConfig

from slm_plugin.errors import ConfigError
from slm_plugin.mitigations.train_only import TrainOnly
from slm_plugin.strict import parse

PARTS = ("embeddings", "attention", "feed_forward", "others")


def llama(tie: bool = False) -> torch.nn.Module:
    config = LlamaConfig(
        vocab_size=20,
        hidden_size=8,
        intermediate_size=8,
        num_attention_heads=1,
        num_hidden_layers=2,
        tie_word_embeddings=tie,
    )
    return AutoModelForCausalLM.from_config(config)


def left(model: torch.nn.Module, *parts: str) -> set[str]:
    TrainOnly(parse(TrainOnly.Options, {"parts": list(parts)}, "train_only")).slm_stage_start(model=model)
    return {name for name, p in model.named_parameters() if p.requires_grad}


def test_attention_only_is_the_four_projections():
    assert {name.split(".")[-2] for name in left(llama(), "attention")} == {"q_proj", "k_proj", "v_proj", "o_proj"}


def test_embeddings_only_is_both_matrices_or_the_one_that_is_tied():
    assert left(llama(), "embeddings") == {"model.embed_tokens.weight", "lm_head.weight"}
    assert left(llama(tie=True), "embeddings") == {"model.embed_tokens.weight"}


def test_the_parts_divide_the_model():
    everything = {name for name, _ in llama().named_parameters()}
    shares = [left(llama(), part) for part in PARTS]
    assert set().union(*shares) == everything
    assert all(not one & other for one, other in itertools.combinations(shares, 2))
    assert left(llama(), *PARTS) == everything


def test_what_the_host_froze_stays_frozen():
    model = get_peft_model(llama(), LoraConfig(target_modules=["q_proj", "up_proj"], r=2))
    found = left(model, "attention")
    assert found
    assert all("q_proj.lora_" in name for name in found)


def test_a_choice_that_leaves_nothing_is_refused_with_what_there_is():
    model = get_peft_model(llama(), LoraConfig(target_modules=["q_proj"], r=2))
    with pytest.raises(ConfigError, match="keeps embeddings, but this run trains only attention: nothing is left"):
        left(model, "embeddings")


@pytest.mark.parametrize("parts", [[], ["atention"], "attention"])
def test_parts_that_are_none_are_refused(parts):
    with pytest.raises(ConfigError, match=r"train_only\.parts"):
        parse(TrainOnly.Options, {"parts": parts}, "train_only")


@pytest.mark.parametrize(
    ("parts", "zero_3", "kind", "refused"),
    [
        (["attention"], True, "lora", True),
        (["attention"], True, "full", False),
        (["attention"], False, "lora", False),
        (["embeddings", "attention", "feed_forward", "others"], True, "lora", False),
    ],
)
def test_an_adapter_under_zero_3_is_refused_whose_frozen_parts_would_not_be_saved(parts, zero_3, kind, refused):
    deepspeed = SimpleNamespace(is_zero3=lambda: zero_3)
    arguments = {"hf_deepspeed_config": deepspeed, "finetuning_type": kind}
    found = TrainOnly(TrainOnly.Options(parts=parts)).slm_check(arguments)
    assert ["frozen parts would not be saved. Use ZeRO-2" in text for text in found] == ([True] if refused else [])
