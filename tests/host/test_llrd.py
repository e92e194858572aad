"""Layer-wise rates through the real host: which optimizers take them, and with what rates."""

from __future__ import annotations

import pytest
from safetensors.torch import load_file
from torch.optim.optimizer import register_optimizer_step_pre_hook

from host.world import UNITS, train_config
from slm_plugin.errors import ConfigError

pytestmark = [pytest.mark.host, pytest.mark.xdist_group("host")]


def decayed(**options):
    return {"stage": "tts", "units": {"count": UNITS}, "mitigations": [{"llrd": {"alpha": 0.5, **options}}]}


def config(base, data, output, slm=None, **changes):
    return train_config(base, data, output, stage="tts", slm=slm or decayed(), **changes) | {"stage": "sft"}


def rates_seen(run_host, configuration):
    """Run, and return the rate of the first step by the shape and number of the parameters that have it."""
    seen = []

    def look(optimizer, args, kwargs):
        if not seen:
            seen.extend(
                (g["lr"], p.shape, g.get("weight_decay", g.get("wd")))
                for g in optimizer.param_groups
                for p in g["params"]
            )

    handle = register_optimizer_step_pre_hook(look)
    try:
        run_host(configuration)
    finally:
        handle.remove()
    return seen


@pytest.mark.parametrize(
    ("changes", "largest"),
    [
        ({"optim": "adamw_torch"}, 1e-3),
        ({"optim": "adamw_torch_fused", "weight_decay": 0.1}, 1e-3),
        ({"optim": "adafactor"}, 1e-3),
        ({"optim": "sgd"}, 1e-3),
        ({"optim": "adagrad"}, 1e-3),
        ({"optim": "rmsprop"}, 1e-3),
        # LoRA+ gives B four times the rate of A, and the decay by layers comes on top
        ({"loraplus_lr_ratio": 4.0}, 4e-3),
        ({"use_muon": True, "finetuning_type": "full"}, 1e-3),
    ],
    ids=lambda value: "-".join(map(str, value.values())) if isinstance(value, dict) else "",
)
def test_the_host_s_optimizers_get_a_rate_for_each_layer(changes, largest, units_base, data, run_host, tmp_path):
    configuration = config(units_base, data, tmp_path, lr_scheduler_type="constant", **changes)
    plain = {key: value for key, value in configuration["slm"].items() if key != "mitigations"}
    stock = rates_seen(run_host, {**configuration, "slm": plain})
    seen = rates_seen(run_host, configuration)
    # two layers: 1 and .5; the embeddings .25
    assert len(seen) == len(stock)
    assert {decay for _, _, decay in seen} == {decay for _, _, decay in stock}
    assert max(rate for rate, _, _ in seen) == pytest.approx(largest)
    # the host logs the first
    assert seen[0][0] == pytest.approx(1e-3)
    factors = {round(rate / 1e-3, 9) for rate, _, _ in seen}
    assert factors == ({1.0, 0.5, 0.25, 4.0, 2.0} if "loraplus_lr_ratio" in changes else {1.0, 0.5, 0.25})
    (embeddings,) = [rate for rate, shape, _ in seen if shape[0] > 500 and rate < 0.9e-3]
    assert embeddings == pytest.approx(0.25e-3)


def test_a_layer_that_learns_more_slowly_moves_less(units_base, data, run_host, tmp_path):
    for name, slm in (("llrd", decayed()), ("none", {"stage": "tts", "units": {"count": UNITS}})):
        run_host(config(units_base, data, tmp_path / name, slm=slm, max_steps=1, lr_scheduler_type="constant"))
    ours, none = (load_file(tmp_path / name / "adapter_model.safetensors") for name in ("llrd", "none"))
    for layer, factor in ((0, 0.5), (1, 1.0)):
        name = f"base_model.model.model.layers.{layer}.self_attn.v_proj.lora_B.weight"
        # Adam's first step from zero is the rate itself, so the ratio is the factor
        ratio = ours[name].abs().max() / none[name].abs().max()
        assert ratio.item() == pytest.approx(factor, rel=1e-3)


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"optim": "lomo"}, "optim: lomo"),
        ({"optim": "galore_adamw"}, "optim: galore_adamw"),
        ({"use_galore": True, "finetuning_type": "full"}, "use_galore: true"),
        ({"use_apollo": True, "finetuning_type": "full"}, "use_apollo: true"),
        ({"use_badam": True, "finetuning_type": "full"}, "use_badam: true"),
        ({"use_adam_mini": True}, "use_adam_mini: true"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_optimizers_without_rates_of_their_own_are_refused_before_anything_is_loaded(
    changes, key, data, run_host, tmp_path, monkeypatch
):
    # the packages of these optimizers are not part of the test environment
    monkeypatch.setenv("DISABLE_VERSION_CHECK", "1")
    monkeypatch.setattr("llamafactory.hparams.parser.check_version", lambda *args, **kwargs: None)
    with pytest.raises(ConfigError, match=f"llrd does not work with {key}"):
        run_host(config(tmp_path / "no_such_model", data, tmp_path / "x", **changes))
