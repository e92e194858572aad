"""The nearest centroid, in float32 whatever the process has set."""

from __future__ import annotations

import torch

from slm_plugin.speech.features.centroids import ROWS_AT_ONCE, Centroids, full_float32


def test_nearest_is_the_smallest_distance() -> None:
    # distances from (1, 1): 2, 1, 13; from (3, 3): 18, 13, 1
    points = torch.tensor([[0.0, 0.0], [1.0, 2.0], [3.0, 4.0]])
    assert Centroids(points).nearest(torch.tensor([[1.0, 1.0], [3.0, 3.0]])).tolist() == [1, 2]


def test_nearest_agrees_with_distances_in_double_precision_over_more_rows_than_fit_at_once() -> None:
    generator = torch.Generator().manual_seed(0)
    points = torch.randn(50, 16, generator=generator)
    rows = torch.randn(ROWS_AT_ONCE + 7, 16, generator=generator)
    expected = torch.cdist(rows.double(), points.double()).argmin(1)
    assert torch.equal(Centroids(points).nearest(rows), expected)


def test_no_rows_have_no_units() -> None:
    assert Centroids(torch.ones(3, 2)).nearest(torch.zeros(0, 2)).tolist() == []


def test_large_features_keep_their_order_under_autocast() -> None:
    # in float16 the square of 300 is infinite, in bfloat16 300 and 300.5 are the same number
    points = torch.tensor([[300.0, 0.0], [300.5, 0.0]])
    rows = torch.tensor([[300.4, 0.0], [300.1, 0.0]])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert Centroids(points).nearest(rows).tolist() == [1, 0]


def test_full_float32_switches_autocast_off_and_on_again() -> None:
    row = torch.ones(1, 4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        with full_float32(torch.device("cpu")):
            assert (row @ row.T).dtype == torch.float32
        assert (row @ row.T).dtype == torch.bfloat16
