"""Learning rates by layer."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, LlamaConfig

from slm_plugin.errors import ConfigError
from slm_plugin.mitigations.llrd import Llrd, rate_factors
from slm_plugin.strict import parse
from slm_plugin.training.optimizers import scale_rates


def llama(layers: int = 3, tie: bool = False) -> torch.nn.Module:
    config = LlamaConfig(
        vocab_size=20,
        hidden_size=8,
        intermediate_size=8,
        num_attention_heads=1,
        num_hidden_layers=layers,
        tie_word_embeddings=tie,
    )
    return AutoModelForCausalLM.from_config(config)


def factors(model: torch.nn.Module, **options: object) -> dict[str, float]:
    found = Llrd(parse(Llrd.Options, options, "llrd")).slm_parameter_groups(model=model)
    assert found is not None
    return found


def test_each_layer_learns_alpha_times_as_fast_as_the_one_above():
    found = factors(llama(), alpha=0.5)
    # three layers: .5^2, .5, 1; the embeddings one lower, .5^3
    for layer, factor in enumerate((0.25, 0.5, 1.0)):
        assert {f for name, f in found.items() if f"layers.{layer}." in name} == {factor}
    assert found["model.embed_tokens.weight"] == 0.125
    assert found["model.norm.weight"] == found["lm_head.weight"] == 1.0


def test_embeddings_and_head_go_where_they_are_put():
    found = factors(llama(), alpha=0.5, embeddings="highest", head="lowest")
    assert (found["model.embed_tokens.weight"], found["lm_head.weight"]) == (1.0, 0.125)
    found = factors(llama(), alpha=0.5, embeddings=0.3, head=2.0)
    assert (found["model.embed_tokens.weight"], found["lm_head.weight"]) == (0.3, 2.0)


def test_a_tied_head_is_the_embeddings():
    assert factors(llama(tie=True), alpha=0.5)["model.embed_tokens.weight"] == 0.125


@pytest.mark.parametrize("options", [{"alpha": 1.0}, {"alpha": 1.0, "embeddings": 1.0, "head": "lowest"}])
def test_alpha_one_asks_for_nothing(options):
    assert Llrd(parse(Llrd.Options, options, "llrd")).slm_parameter_groups(model=llama()) is None


def test_alpha_one_still_places_embeddings_that_have_a_factor():
    found = factors(llama(), alpha=1.0, embeddings=0.5)
    assert {name for name, factor in found.items() if factor != 1} == {"model.embed_tokens.weight"}


def test_what_does_not_train_has_no_rate():
    model = llama()
    model.model.requires_grad_(False)
    assert rate_factors(model, Llrd.Options()) == {"lm_head.weight": 1.0}


@pytest.mark.parametrize(
    "options", [{"alpha": 0.0}, {"alpha": 1.1}, {"head": 0.0}, {"embeddings": -1.0}, {"head": "top"}]
)
def test_options_that_would_not_train_are_refused(options):
    with pytest.raises(ConfigError, match=f"llrd(.{next(iter(options))}|: {next(iter(options))})"):
        parse(Llrd.Options, options, "llrd")


def test_a_model_without_layers_is_refused():
    with pytest.raises(ConfigError, match="no list of layers in Linear"):
        factors(torch.nn.Linear(2, 2))


@pytest.mark.parametrize("key", ["use_galore", "use_apollo", "use_badam", "use_adam_mini"])
def test_the_host_s_optimizers_without_groups_are_refused_by_name(key):
    (text,) = Llrd(Llrd.Options()).slm_check(arguments={key: True})
    assert f"{key}: true" in text
    assert Llrd(Llrd.Options(alpha=1.0)).slm_check(arguments={key: True}) == []


@pytest.mark.parametrize("optim", ["galore_adamw", "apollo_adamw", "lomo", "adalomo"])
def test_optimizers_that_make_their_own_groups_are_refused_by_name(optim):
    (text,) = Llrd(Llrd.Options()).slm_check(arguments={"optim": optim})
    assert f"optim: {optim}" in text


@given(
    rates=st.lists(st.sampled_from([0.25, 0.5, 1.0, 2.0]), min_size=3, max_size=3),
    decay=st.sampled_from([0.0, 0.1]),
)
def test_splitting_groups_changes_rates_and_nothing_else(rates, decay):
    weights = [torch.nn.Parameter(torch.zeros(2)) for _ in range(4)]
    groups = [{"params": weights[:2], "weight_decay": decay}, {"params": weights[2:], "betas": (0.5, 0.6)}]
    optimizer = torch.optim.AdamW(groups, lr=0.1)
    before = {id(p): {**group} for group in optimizer.param_groups for p in group["params"]}
    scale_rates(optimizer, dict(zip(weights, rates, strict=False)))
    after = {id(p): group for group in optimizer.param_groups for p in group["params"]}
    assert after.keys() == before.keys()
    for weight, factor in zip(weights, [*rates, 1.0], strict=True):
        old, new = before[id(weight)], after[id(weight)]
        assert new["lr"] == pytest.approx(0.1 * factor)
        assert {k: v for k, v in new.items() if k not in ("lr", "params")} == {
            k: v for k, v in old.items() if k not in ("lr", "params")
        }
    listed = [group["lr"] for group in optimizer.param_groups]
    assert listed == sorted(listed, reverse=True)


def test_factors_for_weights_that_the_optimizer_does_not_hold_are_refused():
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    with pytest.raises(ConfigError, match="1 parameters with a learning rate of their own"):
        scale_rates(optimizer, {torch.nn.Parameter(torch.zeros(1)): 0.5})
