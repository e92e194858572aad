"""Our methods against worked values, and against mergekit's own functions."""

from __future__ import annotations

import functools
import hashlib

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from slm_plugin.merge import arithmetic, selection
from slm_plugin.merge.arithmetic import low_rank_sum, weighted_sum
from slm_plugin.merge.dare import DareLinear, DareTies, draw_mask
from slm_plugin.merge.linear import Linear
from slm_plugin.merge.options import DensityOptions, WeightOptions
from slm_plugin.merge.protocol import Group, MergeMethod
from slm_plugin.merge.selection import Differences, find_threshold, keep_largest
from slm_plugin.merge.task_arithmetic import TaskArithmetic
from slm_plugin.merge.ties import Ties

METHODS = {
    "linear": Linear,
    "task_arithmetic": TaskArithmetic,
    "ties": Ties,
    "dare_linear": DareLinear,
    "dare_ties": DareTies,
}
SHAPE = (300, 200)


@pytest.fixture
def small_pieces(monkeypatch):
    """Cut tensors of a few thousand elements into many pieces."""
    for module in (arithmetic, selection):
        monkeypatch.setattr(module, "PIECE", 1000)


def options_for(name, weights, density=1.0):
    if name in ("linear", "task_arithmetic"):
        return [WeightOptions(weight=weight) for weight in weights]
    return [DensityOptions(weight=weight, density=density) for weight in weights]


def run(name, base, members, weights, density=1.0, dtype=None, seed=1, **options):
    method = METHODS[name](METHODS[name].Options(**options))
    group = Group("w", members, options_for(name, weights, density), base, dtype or members[0].dtype, seed)
    return method.merge(group)


def run_mergekit(name, base, members, weights, density=1.0, dtype=None, **options):
    from mergekit import merge_methods
    from mergekit.merge_methods.base import TensorEntry, TensorGroup, TensorMetadata

    entries = [TensorEntry(id=str(number), tensor=member) for number, member in enumerate(members)]
    if name != "linear":
        entries = [TensorEntry(id="base", tensor=base, is_base=True), *entries]
    parameters = {"weight": list(weights), **options}
    if name != "linear":
        parameters["density"] = [density] * len(members)
    group = TensorGroup(entries=tuple(entries), metadata=TensorMetadata(name="w"))
    (found,) = merge_methods.get(name)((group,), parameters=parameters, dtype=dtype)
    return found


def models(dtype, seed=0, n=3, shape=SHAPE):
    draw = torch.Generator().manual_seed(seed)
    base = torch.randn(shape, generator=draw) * 0.02
    members = [(base + torch.randn(shape, generator=draw) * 0.01).to(dtype) for _ in range(n)]
    return base.to(dtype), members


def test_every_method_is_one_by_the_protocol():
    for kind in METHODS.values():
        assert isinstance(kind(kind.Options()), MergeMethod)


def test_linear_by_hand():
    # (3 * 1 + 1 * 5) / 4 = 2; without normalising 3 * 1 + 1 * 5 = 8
    members = [torch.tensor([1.0]), torch.tensor([5.0])]
    assert run("linear", None, members, (3, 1)).item() == 2
    assert run("linear", None, members, (3, 1), normalize=False).item() == 8


def test_task_arithmetic_by_hand():
    # 1 + .5 * (2 * (3 - 1) + 1 * (0 - 1)) = 2.5; normalised by 3: 1 + .5 * 3 / 3 = 1.5
    base, members = torch.tensor([1.0]), [torch.tensor([3.0]), torch.tensor([0.0])]
    assert run("task_arithmetic", base, members, (2, 1), **{"lambda": 0.5}).item() == 2.5
    assert run("task_arithmetic", base, members, (2, 1), normalize=True, **{"lambda": 0.5}).item() == 1.5


def test_ties_by_hand():
    base = torch.zeros(4)
    members = [torch.tensor([4.0, -3.0, 1.0, 0.5]), torch.tensor([2.0, 5.0, -6.0, 0.1])]
    # density .5 keeps [4 -3 0 0] and [0 5 -6 0]; weighted by 1 and 2: [4 -3 0 0] and [0 10 -12 0]
    # signs of the sums + + - +; agreeing: 4 of weight 1, 10 of weight 2, -12 of weight 2, nothing
    assert run("ties", base, members, (1, 2), 0.5).tolist() == [4, 5, -6, 0]
    assert run("ties", base, members, (1, 2), 0.5, normalize=False).tolist() == [4, 10, -12, 0]


def test_ties_keeps_the_first_of_equal_magnitudes_and_exactly_as_many_as_the_density_says():
    base, members = torch.zeros(10), [torch.tensor([1.0, -2, 1, 1, -1, 3, 1, 1, 1, 1])]
    # int(.5 * 10) = 5: 3, -2 and the first three of magnitude 1
    assert run("ties", base, members, (1,), 0.5).tolist() == [1, -2, 1, 1, 0, 3, 0, 0, 0, 0]
    # a density above 0 keeps one element at least, 0 none
    assert run("ties", base, members, (1,), 0.01).count_nonzero() == 1
    assert torch.equal(run("ties", base, members, (1,), 0.0), base)


@settings(max_examples=60, deadline=None)
@given(
    n=st.integers(1, 3000),
    share=st.floats(0, 1),
    levels=st.sampled_from([1, 2, 7, 10**6]),
    zeros=st.sampled_from([0.0, 0.9]),
    seed=st.integers(0, 99),
)
def test_the_selection_is_that_of_a_stable_sort(n, share, levels, zeros, seed):
    """Also among many equal magnitudes, and where most differences are zero."""
    draw = np.random.default_rng(seed)
    values = draw.integers(-levels, levels, n, endpoint=True).astype(np.float32) / levels
    values[draw.random(n) < zeros] = 0
    k = max(1, int(share * n))
    kept = np.sort(np.argsort(-np.abs(values), kind="stable")[:k])
    expected = np.zeros_like(values)
    expected[kept] = values[kept]
    with pytest.MonkeyPatch.context() as patch:
        for module in (arithmetic, selection):
            patch.setattr(module, "PIECE", 257)
        patch.setattr(selection, "SAMPLE", 64)
        member, base = torch.from_numpy(values), torch.zeros(n)
        threshold = find_threshold(Differences(member, base), k)
        keep, found = keep_largest(threshold), member.clone()
        for piece in arithmetic.pieces(n):
            keep(piece, found[piece])
    assert np.array_equal(found.numpy(), expected)
    assert np.array_equal(member.numpy(), values)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("normalize", [True, False])
def test_linear_equals_mergekit_within_one_rounding(dtype, normalize, small_pieces):
    _, members = models(dtype)
    weights = (0.9, 0.05, 0.03)
    ours = run("linear", None, members, weights, normalize=normalize)
    theirs = run_mergekit("linear", None, members, weights, normalize=normalize)
    assert ours.dtype == theirs.dtype == dtype
    # sums of float32 may differ by their last bit, which counts most where they cancel
    torch.testing.assert_close(ours, theirs, rtol=torch.finfo(dtype).eps, atol=1e-8)
    if dtype != torch.float32:
        # weights in hundredths make results exactly between two neighbours, which go either way
        assert (ours != theirs).float().mean() < 0.01


@pytest.mark.parametrize("rescale", [False, True])
@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize(("density", "scale"), [(1.0, 1.0), (0.91, 1.0), (0.3, 0.7)])
def test_ties_equals_mergekit_in_float32(rescale, normalize, density, scale, small_pieces):
    base, members = models(torch.float32)
    arguments = (base, members, (0.9, 0.06, 0.04), density)
    options = {"normalize": normalize, "rescale": rescale, "lambda": scale}
    torch.testing.assert_close(
        run("ties", *arguments, **options), run_mergekit("ties", *arguments, **options), rtol=1e-5, atol=1e-8
    )


@pytest.mark.parametrize("weights", [(0.9, 0.06, 0.04), (0.5, -0.2, 0.3), (1, 1, 1)])
@pytest.mark.parametrize("density", [0.91, 0.5])
def test_ties_on_bfloat16_models_equals_mergekit_with_float32_arithmetic(weights, density, small_pieces, monkeypatch):
    """Differences of bfloat16 numbers have many equal magnitudes; a stable sort takes them in index order."""
    monkeypatch.setattr(torch, "argsort", functools.partial(torch.argsort, stable=True))
    base, members = models(torch.bfloat16)
    ours = run("ties", base, members, weights, density)
    theirs = run_mergekit("ties", base, members, weights, density, dtype=torch.float32).bfloat16()
    assert (ours != theirs).float().mean() < 1e-3
    torch.testing.assert_close(ours, theirs, rtol=2**-7, atol=1e-6)


def test_ties_differs_from_mergekit_only_where_magnitudes_are_equal_to_the_threshold(small_pieces):
    """Mergekit's sort is not stable: which of the equal ones it keeps is chance."""
    base, members = models(torch.bfloat16)
    arguments = (base, members, (0.9, 0.06, 0.04), 0.9)
    differ = run("ties", *arguments) != run_mergekit("ties", *arguments, dtype=torch.float32).bfloat16()
    at_threshold = torch.zeros(SHAPE, dtype=torch.bool)
    for member in members:
        threshold = find_threshold(Differences(member, base), int(0.9 * base.numel()))
        at_threshold |= (member.float() - base.float()).abs() == threshold.value
    assert differ.any()
    assert (differ & ~at_threshold).float().mean() < 1e-4


def test_ties_equals_mergekit_with_bfloat16_arithmetic_up_to_its_rounding(small_pieces):
    """Mergekit rounds every step to bfloat16, so elements at the threshold or with cancelling signs may differ."""
    base, members = models(torch.bfloat16)
    weights, density = (0.9, 0.06, 0.04), 0.9
    ours = run("ties", base, members, weights, density).float()
    theirs = run_mergekit("ties", base, members, weights, density).float()
    # four roundings of 2**-9 relative to the largest operand
    step = torch.stack([base, *members]).abs().amax(0).float() * 4 * 2**-8 + 1e-4
    assert ((ours - theirs).abs() > step).float().mean() < 0.01


@pytest.mark.parametrize("name", ["dare_linear", "dare_ties"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("options", [{}, {"rescale": False, "normalize": True}], ids=["default", "changed"])
def test_dare_equals_mergekit_given_the_same_masks(name, dtype, options, small_pieces, monkeypatch):
    base, members = models(dtype)
    weights, density = (0.9, 0.06, 0.04), 0.7
    masks = iter([draw_mask(base.numel(), density, 1, "w", number).view(SHAPE) for number in range(3)])
    monkeypatch.setattr(torch, "bernoulli", lambda share: next(masks).to(share.dtype))
    ours = run(name, base, members, weights, density, **options)
    theirs = run_mergekit(name, base, members, weights, density, dtype=torch.float32, **options).to(dtype)
    assert next(masks, None) is None
    eps = torch.finfo(dtype).eps
    torch.testing.assert_close(ours, theirs, rtol=max(2 * eps, 1e-5), atol=1e-7)


@pytest.mark.parametrize("normalize", [False, True])
def test_task_arithmetic_equals_mergekit(normalize, small_pieces):
    base, members = models(torch.float32)
    ours = run("task_arithmetic", base, members, (0.5, 0.3, 0.4), normalize=normalize, **{"lambda": 0.8})
    theirs = run_mergekit("task_arithmetic", base, members, (0.5, 0.3, 0.4), normalize=normalize, **{"lambda": 0.8})
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-8)


def test_a_mask_depends_on_seed_name_and_member_alone_and_has_its_density():
    mask = draw_mask(100_000, 0.3, 7, "a", 0)
    assert torch.equal(mask, draw_mask(100_000, 0.3, 7, "a", 0))
    for other in (draw_mask(100_000, 0.3, 8, "a", 0), draw_mask(100_000, 0.3, 7, "b", 0)):
        # independent masks agree at .3 ** 2 + .7 ** 2 = .58
        assert (mask == other).float().mean() == pytest.approx(0.58, abs=0.01)
    assert (mask == draw_mask(100_000, 0.3, 7, "a", 1)).float().mean() == pytest.approx(0.58, abs=0.01)
    # standard error sqrt(.21 / 100,000) = .0014
    assert mask.float().mean() == pytest.approx(0.3, abs=0.006)


def test_a_mask_is_the_same_on_every_machine():
    found = hashlib.sha256(np.packbits(draw_mask(4096, 0.5, 1126, "w", 0).numpy()).tobytes()).hexdigest()
    assert found[:12] == "cf7aacf64933"


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_low_rank_sums_are_those_of_the_full_matrices(dtype, small_pieces):
    draw = torch.Generator().manual_seed(0)
    base = torch.randn(120, 64, generator=draw).to(dtype)
    ups = [torch.randn(120, rank, generator=draw) for rank in (4, 8)]
    downs = [torch.randn(rank, 64, generator=draw) for rank in (4, 8)]
    found = low_rank_sum([base], [0.9], ups, downs, dtype)
    expected = 0.9 * base.double() + sum(up.double() @ down.double() for up, down in zip(ups, downs, strict=True))
    torch.testing.assert_close(found.double(), expected, rtol=torch.finfo(dtype).eps, atol=1e-5)


@settings(max_examples=30, deadline=None)
@given(weights=st.lists(st.floats(0.01, 10), min_size=1, max_size=4), seed=st.integers(0, 20))
def test_models_that_are_equal_merge_into_themselves(weights, seed):
    base, _ = models(torch.float32, seed, shape=(9, 7))
    for name in METHODS:
        options = {"normalize": True} | ({} if name in ("linear", "task_arithmetic") else {"density": 0.5})
        merged = run(name, base, [base] * len(weights), weights, options.pop("density", 1.0), **options)
        torch.testing.assert_close(merged, base, rtol=1e-6, atol=1e-8)


def test_the_inputs_are_not_changed():
    base, members = models(torch.float32)
    before = [tensor.clone() for tensor in (base, *members)]
    for name in METHODS:
        run(name, base, members, (0.5, 0.3, 0.2), 0.5)
    assert all(torch.equal(old, new) for old, new in zip(before, (base, *members), strict=True))


def test_float64_models_are_summed_in_float64():
    members = [torch.tensor([1.0], dtype=torch.float64), torch.tensor([1 + 2**-40], dtype=torch.float64)]
    assert weighted_sum(members, [0.5, 0.5], torch.float64).item() == 1 + 2**-41
