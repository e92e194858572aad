"""The L2 anchor against worked values and against autograd."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from slm_plugin.errors import ConfigError, WeightsError
from slm_plugin.mitigations import l2_anchor
from slm_plugin.mitigations.l2_anchor import L2Anchor, pull
from slm_plugin.records import StageRun
from slm_plugin.strict import parse


def anchored(model: torch.nn.Module, **options: object) -> L2Anchor:
    anchor = L2Anchor(L2Anchor.Options(**options))
    anchor.slm_stage_start(model=model)
    return anchor


@pytest.fixture
def run(tmp_path) -> StageRun:
    return StageRun(stage="asr", seed=0, output_dir=tmp_path)


@pytest.mark.parametrize("store", ["device", "cpu"])
def test_the_pull_is_twice_strength_times_the_distance_from_the_start(run, store):
    layer = torch.nn.Linear(2, 1, bias=False)
    anchor = anchored(layer, strength=0.5, store=store)
    layer.weight.grad = torch.ones(1, 2)
    assert anchor.slm_extra_gradient(run=run, parameters=[layer.weight]).item() == 0
    assert layer.weight.grad.tolist() == [[1.0, 1.0]]
    layer.weight.data += torch.tensor([[3.0, 4.0]])
    # .5 * (9 + 16) = 12.5; gradient 1 + 2 * .5 * (3, 4)
    assert anchor.slm_extra_gradient(run=run, parameters=[layer.weight]).item() == pytest.approx(12.5)
    assert layer.weight.grad.flatten().tolist() == pytest.approx([4.0, 5.0])


@given(
    shapes=st.lists(st.sampled_from([(), (3,), (5, 2), (0, 4), (7, 3, 2)]), min_size=1, max_size=5),
    strength=st.floats(1e-6, 1e3),
    chunk=st.integers(1, 40),
)
def test_value_and_gradient_are_those_of_autograd_however_the_weights_are_cut(shapes, strength, chunk):
    draw = torch.Generator().manual_seed(0)

    def random(shape):
        return torch.randn(shape, generator=draw, dtype=torch.float64)

    starts = [random(shape) for shape in shapes]
    ours, reference = ([torch.nn.Parameter(random(shape)) for shape in shapes] for _ in range(2))
    gradients = [random(shape) for shape in shapes]
    for own, other, gradient in zip(ours, reference, gradients, strict=True):
        own.data.copy_(other.data)
        own.grad, other.grad = gradient.clone(), gradient.clone()
    loss = strength * sum((p - p0).square().sum() for p, p0 in zip(reference, starts, strict=True))
    loss.backward()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(l2_anchor, "CHUNK_VALUES", chunk)
        value = pull(list(zip(ours, starts, strict=True)), strength)
    # the value is summed in fp32, the gradient in the weights' own type
    assert value.item() == pytest.approx(loss.item(), rel=1e-5)
    for own, other in zip(ours, reference, strict=True):
        torch.testing.assert_close(own.grad, other.grad, rtol=1e-12, atol=1e-12)


def test_strength_zero_copies_nothing_and_touches_no_gradient(run, tmp_path):
    layer = torch.nn.Linear(2, 1)
    anchor = anchored(layer, strength=0.0)
    layer.weight.grad = torch.ones(1, 2)
    assert anchor.slm_extra_gradient(run=run, parameters=[layer.weight]) is None
    assert layer.weight.grad.tolist() == [[1.0, 1.0]]
    assert list(tmp_path.iterdir()) == []


def test_weights_that_had_no_gradient_at_first_are_anchored_where_they_started(run):
    layer = torch.nn.Linear(1, 1)
    anchor = anchored(layer, strength=0.5)
    layer.weight.grad = torch.zeros(1, 1)
    anchor.slm_extra_gradient(run=run, parameters=[layer.weight])
    layer.bias.data += 2.0
    layer.bias.grad = torch.zeros(1)
    anchor.slm_extra_gradient(run=run, parameters=[layer.bias])
    # 2 * .5 * 2
    assert layer.bias.grad.item() == pytest.approx(2.0)


def test_flat_shards_are_anchored_one_after_the_other_and_kept_for_a_resumed_run(tmp_path):
    model = torch.nn.Linear(2, 2)
    first, second = (torch.nn.Parameter(torch.full((n,), float(n))) for n in (3, 4))
    for shard in (first, second):
        shard.grad = torch.zeros_like(shard)
    run = StageRun("asr", 0, tmp_path, process_index=1, n_processes=2, saves_checkpoints=True)
    anchor = anchored(model, strength=0.5)
    for shard in (first, second):
        anchor.slm_extra_gradient(run=run, parameters=[shard])
    assert [path.name for path in tmp_path.rglob("*.safetensors")] == ["rank-1-of-2.safetensors"]
    resumed = StageRun("asr", 0, tmp_path, 1, 2, resume_from=tmp_path / "checkpoint-2")
    first.data += 1.0
    second.data += 2.0
    again = anchored(model, strength=0.5)
    # .5 * 3 * 1 and .5 * 4 * 4
    assert again.slm_extra_gradient(run=resumed, parameters=[first]).item() == pytest.approx(1.5)
    assert again.slm_extra_gradient(run=resumed, parameters=[second]).item() == pytest.approx(8.0)
    other = StageRun("asr", 0, tmp_path, 0, 4, resume_from=tmp_path / "checkpoint-2")
    with pytest.raises(WeightsError, match=r"rank-0-of-4\.safetensors is missing.*rank-1-of-2.*as many processes"):
        anchored(model, strength=0.5).slm_extra_gradient(run=other, parameters=[first])


@pytest.mark.parametrize("value", [-1.0, float("nan"), "much"])
def test_a_strength_that_is_no_penalty_is_refused(value):
    with pytest.raises(ConfigError, match=r"l2_anchor\.strength"):
        parse(L2Anchor.Options, {"strength": value}, "l2_anchor")


@pytest.mark.parametrize(
    ("arguments", "key"),
    [
        ({"optim": "lomo"}, "optim: lomo"),
        ({"optim": "galore_adamw_layerwise"}, "optim: galore_adamw_layerwise"),
        ({"use_galore": True, "galore_layerwise": True}, "galore_layerwise: true"),
        ({"use_badam": True}, "use_badam: true"),
    ],
)
def test_optimizers_that_leave_no_moment_for_a_gradient_are_refused(arguments, key):
    (text,) = L2Anchor(L2Anchor.Options()).slm_check(arguments=arguments)
    assert key in text
    assert L2Anchor(L2Anchor.Options(strength=0.0)).slm_check(arguments=arguments) == []


def test_common_optimizers_are_accepted():
    for optim in ("adamw_torch", "adafactor", "sgd", "galore_adamw", "lion_32bit"):
        assert L2Anchor(L2Anchor.Options()).slm_check(arguments={"optim": optim}) == []
