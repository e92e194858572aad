"""The L2 anchor through the real host, against a penalty that autograd differentiates."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file
from torch.optim.optimizer import register_optimizer_step_pre_hook

from contracts.conftest import on_two_processes  # noqa: F401  # fixtures
from host.world import UNITS, train_config, under_zero
from slm_plugin.errors import ConfigError, WeightsError

pytestmark = [pytest.mark.host, pytest.mark.xdist_group("host")]

STRENGTH = 0.5
# four micro-batches of 2 in two steps, clipped hard
ACCUMULATED = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2, "max_grad_norm": 0.1}
LINEAR = {"optim": "sgd", "learning_rate": 0.1}


def anchored(**options):
    return {
        "stage": "tts",
        "units": {"count": UNITS},
        "mitigations": [{"l2_anchor": {"strength": STRENGTH, **options}}],
    }


def config(base, data, output, slm=None, **changes):
    found = train_config(base, data, output, stage="tts", slm=slm or anchored(), **changes)
    return found | {"stage": "sft", "disable_shuffling": True}


def weights(folder):
    name = "adapter_model.safetensors"
    return load_file(folder / (name if (folder / name).is_file() else "model.safetensors"))


def furthest(one, other):
    assert one.keys() == other.keys()
    return max((one[name].float() - other[name].float()).abs().max().item() for name in one)


@pytest.fixture
def reference(run_host):
    """Run without the mitigation, with the same penalty differentiated by autograd before every step."""

    def run(configuration):
        starts = {}

        def add(optimizer, args, kwargs):
            for parameter in (p for group in optimizer.param_groups for p in group["params"]):
                start = starts.setdefault(id(parameter), parameter.detach().clone())
                (STRENGTH * (parameter - start).pow(2).sum()).backward()

        handle = register_optimizer_step_pre_hook(add)
        slm = {key: value for key, value in configuration["slm"].items() if key != "mitigations"}
        try:
            run_host({**configuration, "slm": slm})
        finally:
            handle.remove()

    return run


@pytest.mark.parametrize(
    "changes",
    [
        {},
        ACCUMULATED,
        {"bf16": True, **ACCUMULATED},
        {"finetuning_type": "full"},
        {"finetuning_type": "full", "bf16": True},
        {"optim": "adafactor"},
    ],
    ids=["plain", "accumulated", "accumulated-bf16", "full", "full-bf16", "adafactor"],
)
def test_the_update_is_that_of_the_penalty_by_autograd(changes, units_base, data, run_host, reference, tmp_path):
    changes = {**LINEAR, "max_steps": 4, **changes}
    run_host(config(units_base, data, tmp_path / "ours", **changes))
    reference(config(units_base, data, tmp_path / "theirs", **changes))
    run_host(config(units_base, data, tmp_path / "none", slm={"stage": "tts", "units": {"count": UNITS}}, **changes))
    ours, theirs, none = (weights(tmp_path / name) for name in ("ours", "theirs", "none"))
    assert furthest(ours, none) > 1e-4
    assert furthest(ours, theirs) <= 2e-7


def test_the_logged_value_is_the_penalty_and_grows_from_zero(units_base, data, run_host, tmp_path):
    run_host(config(units_base, data, tmp_path, **LINEAR, **ACCUMULATED))
    history = json.loads((tmp_path / "trainer_state.json").read_text())["log_history"]
    values = [entry["extra_gradient"] for entry in history if "extra_gradient" in entry]
    assert len(values) == 3
    assert values[0] == 0 < values[1] < values[2]


@pytest.mark.parametrize("kind", ["lora", "full"])
def test_a_resumed_run_is_pulled_to_the_start_of_the_stage(kind, units_base, data, run_host, tmp_path):
    changes = {"max_steps": 4, "save_strategy": "steps", "save_steps": 2, "finetuning_type": kind}
    run_host(config(units_base, data, tmp_path / "once", **changes))
    checkpoint = tmp_path / "once/checkpoint-2"
    run_host(config(units_base, data, tmp_path / "resumed", **changes, resume_from_checkpoint=str(checkpoint)))
    assert furthest(weights(tmp_path / "once"), weights(tmp_path / "resumed")) == 0
    # its own checkpoint can be resumed in turn
    assert (tmp_path / "resumed/slm_stage_start/weights.safetensors").is_file()
    # with the anchor where the resumed run began, the pull would be another
    run_host(config(units_base, data, tmp_path / "none", slm={"stage": "tts", "units": {"count": UNITS}}, **changes))
    assert furthest(weights(tmp_path / "once"), weights(tmp_path / "none")) > 1e-5
    (tmp_path / "once/slm_stage_start/weights.safetensors").unlink()
    with pytest.raises(WeightsError, match=r"slm_stage_start/weights\.safetensors is missing"):
        run_host(config(units_base, data, tmp_path / "lost", **changes, resume_from_checkpoint=str(checkpoint)))


def test_a_run_without_checkpoints_leaves_no_copy_of_the_start(units_base, data, run_host, tmp_path):
    run_host(config(units_base, data, tmp_path))
    assert not (tmp_path / "slm_stage_start").exists()


def test_an_optimizer_without_a_step_is_refused_before_anything_is_loaded(units_base, data, run_host, tmp_path):
    with pytest.raises(ConfigError, match=r"slm\.mitigations: l2_anchor does not work with optim: lomo"):
        run_host(config(tmp_path / "no_such_model", data, tmp_path / "x", optim="lomo"))


def test_a_scaled_gradient_is_unscaled_before_the_pull_is_added(units_base, data, tmp_path):
    from slm_plugin.host.trainer import with_hooks

    weight = torch.nn.Parameter(torch.ones(2))
    optimizer = torch.optim.AdamW([weight], lr=0.1, fused=True)
    trainer = with_hooks(object).__new__(with_hooks(object))
    seen = []

    class Hooks:
        def slm_extra_gradient(self, run, parameters):
            seen.extend(p.grad.clone() for p in parameters)
            return []

    trainer.slm = type("Active", (), {"hooks": type("Manager", (), {"hook": Hooks()})})()
    type(trainer).slm_run = None
    weight.grad = torch.tensor([8.0, 4.0])
    optimizer.grad_scale = torch.tensor(4.0)
    trainer._add_gradient(optimizer, (), {})
    # 8 / 4 and 4 / 4; the fused step must not divide again
    assert seen[0].tolist() == [2.0, 1.0]
    assert optimizer.grad_scale is None


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("zero", [0, 2, 3])
def test_two_processes_that_resume_are_pulled_to_the_start_of_the_stage(
    zero,
    units_base,
    data,
    on_two_processes,
    tmp_path,
):
    changes = {"max_steps": 4, "save_strategy": "steps", "save_steps": 2, "per_device_train_batch_size": 2}
    runs = {
        "once": {},
        "resumed": {"resume_from_checkpoint": str(tmp_path / "once/checkpoint-2")},
        "none": {"slm": {"stage": "tts", "units": {"count": UNITS}}},
    }
    made = [config(units_base, data, tmp_path / name, **changes, **more) for name, more in runs.items()]
    on_two_processes([under_zero(zero, configuration, tmp_path) for configuration in made])
    once, resumed, none = (weights(tmp_path / name) for name in runs)
    assert furthest(once, none) > 1e-5
    assert furthest(once, resumed) <= 1e-7


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("zero", [0, 2, 3])
@pytest.mark.parametrize("clipping", [1.0, 0.1])
def test_two_processes_plain_or_under_zero_make_the_same_update(
    zero,
    clipping,
    units_base,
    data,
    run_host,
    on_two_processes,
    tmp_path,
):
    changes = {**LINEAR, "max_steps": 4, "gradient_accumulation_steps": 2, "max_grad_norm": clipping}
    changes["per_device_train_batch_size"] = 1
    two = under_zero(zero, config(units_base, data, tmp_path / "two", **changes), tmp_path)
    on_two_processes([two])
    run_host(config(units_base, data, tmp_path / "one", **{**changes, "per_device_train_batch_size": 2}))
    assert furthest(weights(tmp_path / "one"), weights(tmp_path / "two")) <= 2e-6
    one, other = (
        [
            e["extra_gradient"]
            for e in json.loads((tmp_path / name / "trainer_state.json").read_text())["log_history"]
            if "extra_gradient" in e
        ]
        for name in ("one", "two")
    )
    assert other == pytest.approx(one, rel=1e-3, abs=1e-9)
    assert one[-1] > 0
