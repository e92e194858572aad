"""Start values of new rows: only known rows count, only new rows change, and the seed decides."""

from __future__ import annotations

import pytest
import torch

from slm_plugin.embedding import start_from_covariance, start_from_mean

STARTS = pytest.mark.parametrize("start", [start_from_mean, start_from_covariance])


def matrix(n_known, n_padding, width=16, padding=1e6):
    known = torch.randn(n_known, width, generator=torch.Generator().manual_seed(1))
    return torch.cat([known, torch.full((n_padding, width), padding)])


@STARTS
def test_padding_has_no_part_in_the_start_of_new_rows(start):
    found = {}
    for padding in (0.0, 1e6):
        weight = matrix(40, 24, padding=padding)
        start(weight, range(40, 50), 40, torch.Generator().manual_seed(3))
        found[padding] = weight[:50]
        assert torch.equal(weight[:40], matrix(40, 0))
        assert torch.all(weight[50:] == padding)
    assert torch.equal(found[0.0], found[1e6])


@STARTS
def test_rows_between_the_known_and_the_new_ones_are_left_alone(start):
    weight = matrix(40, 24)
    start(weight, range(50, 60), 40, torch.Generator().manual_seed(3))
    assert torch.all(weight[40:50] == 1e6)
    assert torch.all(weight[50:60].abs() < 10)


@STARTS
def test_the_seed_decides(start):
    weights = [matrix(40, 24) for _ in range(3)]
    for weight, seed in zip(weights, (3, 3, 4), strict=True):
        start(weight, range(40, 50), 40, torch.Generator().manual_seed(seed))
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_mean_and_noise_are_those_of_the_rule():
    weight = matrix(40, 1000, width=64)
    start_from_mean(weight, range(40, 1040), 40, torch.Generator().manual_seed(3))
    moved = weight[40:] - weight[:40].mean(0)
    # 64,000 draws of standard deviation 1 / sqrt(64) = 0.125
    assert float(moved.std()) == pytest.approx(0.125, rel=0.02)
    assert abs(float(moved.mean())) < 0.002
