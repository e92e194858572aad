"""The KL term against torch's own, and the teacher's forward."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, LlamaConfig

from slm_plugin.mitigations.kl_anchor import KlAnchor
from slm_plugin.records import PoolDraw, StageRun
from slm_plugin.training.distillation import summed_kl
from slm_plugin.training.teacher import teacher_logits

RUN = StageRun("asr", 0, None)


def llama(dropout: float = 0.0, tie: bool = False) -> torch.nn.Module:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=20,
        hidden_size=16,
        intermediate_size=16,
        num_attention_heads=2,
        num_hidden_layers=2,
        tie_word_embeddings=tie,
        attention_dropout=dropout,
    )
    return AutoModelForCausalLM.from_config(config)


def adapted(dropout: float = 0.0, **options: object) -> torch.nn.Module:
    model = get_peft_model(
        llama(dropout), LoraConfig(target_modules=["q_proj", "v_proj"], r=2, lora_dropout=dropout, **options)
    )
    model.train()
    return model


def disturb(model: torch.nn.Module) -> None:
    draw = torch.Generator().manual_seed(1)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data += 0.3 * torch.randn(parameter.shape, generator=draw)


def batch() -> dict[str, torch.Tensor]:
    ids = torch.randint(0, 20, (4, 6), generator=torch.Generator().manual_seed(2))
    labels = ids.clone()
    labels[:, :3] = -100
    labels[1, 4:] = -100
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels}


def loss(anchor: KlAnchor, model: torch.nn.Module, inputs: dict[str, torch.Tensor], weight: float = 1.0):
    outputs = model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"])
    return anchor.slm_extra_loss(run=RUN, model=model, inputs=inputs, outputs=outputs, weight=weight)


def anchor(**options: object) -> KlAnchor:
    return KlAnchor(KlAnchor.Options(**options))


def test_the_divergence_of_a_worked_pair():
    # teacher (1/2, 1/2), student (1/4, 3/4): ln 2 / 2 + ln(2/3) / 2
    student = torch.tensor([[0.0, math.log(3.0)]])
    assert summed_kl(student, torch.zeros(1, 2)).item() == pytest.approx(0.5 * math.log(2) + 0.5 * math.log(2 / 3))


@given(
    n=st.integers(0, 9), chunk=st.integers(1, 10), temperature=st.sampled_from([0.5, 1.0, 4.0]), seed=st.integers(0, 9)
)
def test_value_and_gradient_are_torch_s_however_the_tokens_are_cut(n, chunk, temperature, seed):
    draw = torch.Generator().manual_seed(seed)
    ours = torch.randn(n, 7, generator=draw, dtype=torch.float64, requires_grad=True)
    theirs = ours.detach().clone().requires_grad_()
    teacher = torch.randn(n, 7, generator=draw, dtype=torch.float64)
    value = summed_kl(ours, teacher, temperature, chunk)
    reference = torch.nn.functional.kl_div(
        torch.log_softmax(theirs / temperature, -1),
        torch.log_softmax(teacher / temperature, -1),
        reduction="sum",
        log_target=True,
    )
    (3 * value).backward()
    (3 * reference).backward()
    torch.testing.assert_close(value, reference)
    torch.testing.assert_close(ours.grad, theirs.grad)


@pytest.mark.parametrize("teacher", ["base", "stage_start"])
def test_a_student_that_has_not_moved_costs_nothing(teacher):
    value = loss(anchor(teacher=teacher), adapted(), batch())
    assert value.item() == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize("options", [{}, {"modules_to_save": ["embed_tokens", "lm_head"]}])
def test_the_base_teacher_is_the_model_without_its_adapter(options):
    model = adapted(**options)
    disturb(model)
    inputs = batch()
    plain = llama()(input_ids=inputs["input_ids"]).logits
    torch.testing.assert_close(teacher_logits(model, {"input_ids": inputs["input_ids"]}, None), plain.detach())


@pytest.mark.parametrize("full", [False, True], ids=["lora", "full"])
def test_the_stage_start_teacher_is_the_model_as_it_was(full):
    model = llama() if full else adapted(modules_to_save=["embed_tokens"])
    disturb(model)
    inputs = {"input_ids": batch()["input_ids"]}
    before = model(**inputs).logits.detach()
    start = {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}
    disturb(model)
    after = model(**inputs).logits.detach()
    torch.testing.assert_close(teacher_logits(model, inputs, start), before)
    assert torch.equal(model(**inputs).logits, after)


@pytest.mark.parametrize(
    "options",
    [{"modules_to_save": ["embed_tokens"], "ensure_weight_tying": True}, {"trainable_token_indices": [3, 4]}],
    ids=["modules", "rows"],
)
def test_a_weight_that_two_paths_lead_to_is_put_back_as_the_parameter_that_trains(options):
    plain = llama(tie=True)
    model = get_peft_model(plain, LoraConfig(target_modules=["q_proj"], r=2, **options))
    start = {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}
    held = dict(model.named_parameters(remove_duplicate=False))
    before = model(input_ids=batch()["input_ids"]).logits.detach()
    disturb(model)
    torch.testing.assert_close(teacher_logits(model, {"input_ids": batch()["input_ids"]}, start), before)
    after = dict(model.named_parameters(remove_duplicate=False))
    assert held.keys() == after.keys()
    assert all(after[name] is held[name] for name in held)


def test_the_term_is_the_mean_over_answer_tokens_times_strength_and_squared_temperature():
    model, inputs = adapted(), batch()
    disturb(model)
    student = model(input_ids=inputs["input_ids"]).logits[:, :-1].detach() / 2.0
    teacher = llama()(input_ids=inputs["input_ids"]).logits[:, :-1].detach() / 2.0
    by_token = (teacher.softmax(-1) * (teacher.log_softmax(-1) - student.log_softmax(-1))).sum(-1)
    answered = inputs["labels"][:, 1:] != -100
    expected = 0.7 * 4.0 * by_token[answered].mean()
    value = loss(anchor(strength=0.7, temperature=2.0, teacher="base"), model, inputs, weight=1.5)
    assert value.item() == pytest.approx(1.5 * expected.item(), rel=1e-5)
    value.backward()
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)


def test_rows_share_the_mean_of_all():
    model, inputs = adapted(), batch()
    disturb(model)
    inputs["slm_source"] = torch.tensor([0, 1, 0, 2])
    terms = {rows: loss(anchor(teacher="base", rows=rows), model, inputs) for rows in ("all", "replayed", "current")}
    torch.testing.assert_close(terms["replayed"] + terms["current"], terms["all"])
    assert terms["replayed"] > 0
    inputs["slm_source"] = torch.zeros(4, dtype=torch.long)
    assert loss(anchor(teacher="base", rows="replayed"), model, inputs) is None


def test_strength_zero_runs_no_teacher():
    silent = anchor(strength=0.0, rows="replayed")
    assert silent.slm_extra_loss(run=RUN, model=None, inputs={}, outputs=None, weight=1.0) is None
    assert not silent.wants_sources
    assert silent.slm_check(arguments={}, draws=[]) == []


def test_the_teacher_leaves_random_state_modes_and_what_trains_alone():
    model = adapted(dropout=0.5)
    model.base_model.model.model.layers[1].self_attn.q_proj.lora_A.requires_grad_(False)
    model.base_model.model.model.norm.eval()
    trained = [p.requires_grad for p in model.parameters()]
    modes = [module.training for module in model.modules()]
    state = torch.get_rng_state()
    inputs = {"input_ids": batch()["input_ids"]}
    first, second = (teacher_logits(model, inputs, None) for _ in range(2))
    assert torch.equal(first, second)
    assert torch.equal(state, torch.get_rng_state())
    assert [p.requires_grad for p in model.parameters()] == trained
    assert [module.training for module in model.modules()] == modes


def test_what_a_run_does_not_have_is_refused_before_it_starts():
    zero3 = type("Config", (), {"is_zero3": lambda self: True})()
    assert "nothing is replayed" in anchor(rows="replayed").slm_check(arguments={}, draws=[PoolDraw("a", 0.0)])[0]
    assert anchor(rows="replayed").slm_check(arguments={}, draws=[PoolDraw("a", 0.1)]) == []
    full = {"finetuning_type": "full"}
    assert "Use teacher: stage_start" in anchor(teacher="base").slm_check(arguments=full, draws=[])[0]
    assert "ZeRO-3" in anchor().slm_check(arguments={"hf_deepspeed_config": zero3}, draws=[])[0]
    assert anchor(teacher="base").slm_check(arguments={"hf_deepspeed_config": zero3}, draws=[]) == []
    assert "liger" in anchor().slm_check(arguments={"enable_liger_kernel": True}, draws=[])[0]
