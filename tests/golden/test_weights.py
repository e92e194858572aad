"""Merges and adapters beside the values that mergekit, PEFT and plain formulas gave."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from slm_plugin.adapters.folded import FoldedCheckpoint
from slm_plugin.adapters.lora import CONFIG_FILE, PREFIX, WEIGHTS_FILE, Decomposed, LoraAdapter, LowRank
from slm_plugin.adapters.scale import interpolated, interpolated_rows, with_magnitude
from slm_plugin.embedding import COVARIANCE_SCALE, start_from_covariance
from slm_plugin.merge import dare
from slm_plugin.merge.dare import DareLinear, DareTies
from slm_plugin.merge.linear import Linear
from slm_plugin.merge.protocol import Group
from slm_plugin.merge.task_arithmetic import TaskArithmetic
from slm_plugin.merge.ties import Ties
from slm_plugin.weights.checkpoint import Checkpoint

METHODS = {
    "linear merge": Linear,
    "task_arithmetic": TaskArithmetic,
    "TIES merge": Ties,
    "dare_linear": DareLinear,
    "dare_ties": DareTies,
}
# float32 keeps 24 bits, and a few operations lose some of the last
FLOAT32 = 1e-6


@pytest.mark.parametrize("algorithm", METHODS)
def test_a_merge_gives_mergekit_s_value(algorithm, golden, monkeypatch):
    given, value = golden(algorithm)
    masks = [torch.tensor(mask, dtype=torch.bool) for mask in given.pop("masks", [])]
    # the draw is the caller's; what is done with it is mergekit's
    monkeypatch.setattr(dare, "draw_mask", lambda n, density, seed, name, member: masks[member])
    given.pop("method")
    base, *members = (
        None if numbers is None else torch.tensor(numbers, dtype=torch.float64)
        for numbers in (given.pop("base"), *given.pop("members"))
    )
    kind = METHODS[algorithm]
    columns = {name: given.pop(name) for name in ("weight", "density") if name in given}
    options = [
        kind.MemberOptions(**dict(zip(columns, row, strict=True))) for row in zip(*columns.values(), strict=True)
    ]
    merged = kind(kind.Options(**given)).merge(Group("w", members, options, base, torch.float64, seed=1))
    assert merged.tolist() == pytest.approx(value, rel=1e-12)


def write_adapter(tmp_path, weight, up, down, config, magnitude=None):
    """Write a base of one layer and an adapter for it, as PEFT names them."""
    base, folder = tmp_path / "base", tmp_path / "adapter"
    base.mkdir()
    folder.mkdir()
    save_file({"layer.weight": torch.tensor(weight)}, base / "model.safetensors")
    tensors = {"lora_A.weight": down, "lora_B.weight": up}
    if magnitude is not None:
        tensors["lora_magnitude_vector"] = magnitude
    save_file(
        {f"{PREFIX}layer.{name}": torch.tensor(values) for name, values in tensors.items()}, folder / WEIGHTS_FILE
    )
    (folder / CONFIG_FILE).write_text(json.dumps({"peft_type": "LORA", "target_modules": ["layer"], **config}))
    return Checkpoint(base), LoraAdapter(folder)


@pytest.mark.parametrize("algorithm", ["LoRA at a factor", "rank-stabilised LoRA", "DoRA"])
def test_an_adapter_folded_in_gives_peft_s_weight(algorithm, golden, tmp_path):
    given, value = golden(algorithm)
    factor = given.pop("factor", 1.0)
    found = FoldedCheckpoint(*write_adapter(tmp_path, **given), factor).tensor("layer.weight")
    np.testing.assert_allclose(found.numpy(), value, rtol=FLOAT32)


def test_dora_at_a_factor_moves_direction_and_magnitude(golden):
    given, value = golden("DoRA at a factor")
    delta = torch.tensor(given["delta"])
    decomposed = Decomposed(LowRank(delta, torch.eye(3), 1.0), torch.tensor(given["magnitude"]), axis=0)
    found = with_magnitude(torch.tensor(given["weight"]), decomposed, given["factor"])
    np.testing.assert_allclose(found.numpy(), value, rtol=FLOAT32)


def test_rows_trained_in_full_move_toward_the_base_and_units_do_not(golden):
    given, value = golden("interpolated rows")
    (unit,) = given["kept"]
    units = {"first_id": unit, "count": 1}
    base, trained = torch.tensor(given["base"]), torch.tensor(given["trained"])
    found = interpolated(base, trained, given["factor"], units)
    by_row = interpolated_rows(base, list(range(len(trained))), trained, given["factor"], units)
    for rows in (found, by_row):
        np.testing.assert_allclose(rows.numpy(), value, rtol=FLOAT32)


def test_new_embeddings_have_a_billionth_of_the_covariance_of_the_old_ones(golden, monkeypatch):
    given, value = golden("start of new embeddings")
    old = torch.tensor(given["rows"])
    weight = torch.cat([old, torch.zeros_like(old)])
    # with the identity for noise, the new rows' squares add up to what their covariance is on average
    monkeypatch.setattr(torch, "randn", lambda rows, columns, generator: torch.eye(rows, columns))
    start_from_covariance(weight, range(len(old), len(weight)), len(old), torch.Generator())
    moved = (weight[len(old) :] - old.mean(0)).double()
    assert given["scale"] == COVARIANCE_SCALE
    np.testing.assert_allclose((moved.T @ moved).numpy(), value, rtol=FLOAT32)
