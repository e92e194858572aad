"""Mitigations and what they calculate with, beside the values that torch and plain formulas gave."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from slm_plugin.data.mixing import quota
from slm_plugin.data.schedule import assign, factor, shares
from slm_plugin.data.surprise import choose_rows
from slm_plugin.mitigations.kl_anchor import KlAnchor
from slm_plugin.mitigations.l2_anchor import pull
from slm_plugin.mitigations.llrd import Llrd, rate_factors
from slm_plugin.records import RatioSchedule, StageRun
from slm_plugin.training.distillation import summed_kl


class Bigram(torch.nn.Embedding):
    """A language model that looks at the last token only: its rows are the next token's logits."""

    def forward(self, input_ids, use_cache=False):
        return SimpleNamespace(logits=super().forward(input_ids))


def test_the_divergence_and_its_gradient_are_torch_s(golden):
    given, value = golden("KL of distillation")
    student = torch.tensor(given["student"], dtype=torch.float64, requires_grad=True)
    found = summed_kl(student, torch.tensor(given["teacher"], dtype=torch.float64), given["temperature"])
    found.backward()
    assert found.item() == pytest.approx(value["value"], rel=1e-12)
    np.testing.assert_allclose(student.grad.numpy(), value["gradient"], rtol=1e-10)


def test_the_kl_anchor_adds_the_mean_over_answer_tokens(golden, tmp_path):
    given, value = golden("KL anchor")
    student, teacher, ids, labels = (given.pop(key) for key in ("student", "teacher", "ids", "labels"))
    model, run = (
        Bigram.from_pretrained(torch.tensor(teacher, dtype=torch.float64), freeze=False),
        StageRun("asr", 0, tmp_path),
    )
    inputs = {"input_ids": torch.tensor([ids]), "labels": torch.tensor([labels])}
    anchor = KlAnchor(KlAnchor.Options(**given))

    def term():
        return anchor.slm_extra_loss(
            run=run, model=model, inputs=inputs, outputs=model(inputs["input_ids"]), weight=1.0
        )

    assert term().item() == pytest.approx(0, abs=1e-12)
    model.weight.data = torch.tensor(student, dtype=torch.float64)
    assert term().item() == pytest.approx(value, rel=1e-12)


def test_the_pull_of_the_l2_anchor_and_its_gradient_are_autograd_s(golden):
    given, value = golden("L2 anchor")
    weight, start = (torch.tensor(given[key], dtype=torch.float64) for key in ("now", "start"))
    weight.grad = torch.zeros_like(weight)
    # the value is summed in float32, the gradient in the weights' own type
    assert pull([(weight, start)], given["strength"]).item() == pytest.approx(value["value"], rel=1e-6)
    assert weight.grad.tolist() == pytest.approx(value["gradient"], rel=1e-12)


def test_layers_learn_by_powers_of_alpha(golden):
    given, value = golden("layer-wise learning-rate decay")
    model = torch.nn.ModuleDict(
        {
            "embeddings": torch.nn.Embedding(2, 2),
            "layers": torch.nn.ModuleList(torch.nn.Linear(2, 2, bias=False) for _ in range(given["layers"])),
        }
    )
    found = rate_factors(model, Llrd.Options(alpha=given["alpha"]))
    assert [given["rate"] * factor for factor in found.values()] == pytest.approx(value, rel=1e-12)


@pytest.mark.parametrize("shape", ["linear", "cosine"])
def test_a_schedule_of_replay_is_torch_s_of_a_learning_rate(shape, golden):
    given, value = golden(f"{shape} schedule of replay")
    steps = given.pop("steps")
    found = factor(RatioSchedule(**given), np.arange(steps + 1) / steps)
    assert found.tolist() == pytest.approx(value, rel=1e-12)


def test_streams_take_turns_as_tijdeman_lets_them(golden):
    given, value = golden("turns of replay")
    ratios, progress = [float(ratio) for ratio in given["ratios"]], np.linspace(0, 1, given["positions"] * 2)
    # what is urgent depends on the positions to come
    found = assign(shares(ratios, [None] * len(ratios), progress))
    assert found[: given["positions"]].tolist() == value


def test_replay_draws_the_floor_of_the_exact_product(golden):
    given, value = golden("rows of replay")
    assert quota(float(given["ratio"]), given["rows"]) == value


def test_surprising_rows_are_those_with_the_largest_noisy_losses(golden):
    given, value = golden("Gumbel-top-k draw of replay")
    losses = np.array(given.pop("losses"))
    found = choose_rows(n_pool=len(losses), rows_C=np.arange(len(losses)), losses_C=losses, **given)
    assert found.tolist() == value
