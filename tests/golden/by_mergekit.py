"""Merges of three models of six numbers by mergekit, in float64."""

from __future__ import annotations

from typing import Any
from unittest import mock

import torch

from golden.entry import Entry

BASE = [0.5, -1.0, 0.25, 0.0, 2.0, -0.75]
MEMBERS = [
    [4.5, -4.0, 1.25, 0.5, 1.75, -1.5],
    [2.5, 4.0, -5.75, 0.125, 2.5, -1.0],
    [0.25, -3.5, 1.0, -2.0, 3.0, 0.5],
]
MASKS = [[1, 0, 1, 1, 0, 1], [1, 1, 0, 1, 1, 0], [0, 1, 1, 0, 1, 1]]


def merged(method: str, base: list[float] | None, members: list[list[float]], **settings: Any) -> list[float]:
    """Return what one of mergekit's methods makes of a tensor.

    Args:
        method: Its name in mergekit.
        base: The base; None where the method takes none.
        members: The models.
        settings: ``masks`` takes the place of the random draw; the others are mergekit's parameters.
    """
    from mergekit import merge_methods
    from mergekit.merge_methods.base import TensorEntry, TensorGroup, TensorMetadata

    def tensor(numbers: list[float]) -> torch.Tensor:
        return torch.tensor(numbers, dtype=torch.float64)

    masks = iter([tensor(mask) for mask in settings.pop("masks", [])])
    entries = [TensorEntry(id=str(number), tensor=tensor(member)) for number, member in enumerate(members)]
    if base is not None:
        entries = [TensorEntry(id="base", tensor=tensor(base), is_base=True), *entries]
    group = TensorGroup(entries=tuple(entries), metadata=TensorMetadata(name="w"))
    with mock.patch.object(torch, "bernoulli", side_effect=masks):
        (found,) = merge_methods.get(method)((group,), parameters=settings, dtype=None)
    assert next(masks, None) is None
    return found.tolist()


def _entry(method: str, source: str, **settings: Any) -> Entry:
    base = None if method == "linear" else BASE
    name = {"linear": "linear merge", "ties": "TIES merge"}.get(method, method)
    given = {"method": method, "base": base, "members": MEMBERS, "weight": [0.5, 0.3, 0.4], **settings}
    return Entry(name, source, f"mergekit {method}", given, merged)


_HALF = [0.5, 0.5, 0.5]
_DARE = "arXiv 2311.03099, section 3.2"
ENTRIES = (
    _entry("linear", "arXiv 2203.05482", normalize=True),
    _entry("task_arithmetic", "arXiv 2212.04089, section 2", normalize=False, **{"lambda": 0.8}),
    _entry("ties", "arXiv 2306.01708, section 3", density=_HALF, normalize=True, **{"lambda": 0.8}),
    _entry("dare_linear", _DARE, density=_HALF, masks=MASKS, normalize=False, rescale=True, **{"lambda": 0.8}),
    _entry("dare_ties", _DARE, density=_HALF, masks=MASKS, normalize=False, rescale=True, **{"lambda": 0.8}),
)
