"""The block under DeepSpeed ZeRO-2 and ZeRO-3 on the CPU; the first run builds an operator for minutes."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file

from contracts.conftest import on_two_processes  # noqa: F401  # fixtures
from host.world import UNITS, train_config, under_zero
from slm_plugin import card
from tiny_models import make_model

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

# a weight's step must not depend on the sign of a gradient that is all rounding, as Adam's would
LINEAR = {"optim": "sgd", "learning_rate": 0.1, "disable_shuffling": True}
BLOCKS = {
    "replay": {"mitigations": [{"replay": {"sources": {"llm": 0.5}}}]},
    "llrd": {"mitigations": [{"llrd": {"alpha": 0.5}}]},
    "train_only": {"mitigations": [{"train_only": {"parts": ["attention"]}}]},
    "lora_scale": {"lora_scale": 0.5, "scaled_modules": "interpolate"},
}


@pytest.mark.parametrize("zero", [2, 3])
def test_zero_trains_to_the_same_weights_as_one_plain_process(
    zero,
    units_base,
    data,
    run_host,
    on_two_processes,
    tmp_path,
):
    run_host(train_config(units_base, data, tmp_path / "asr", max_steps=6))
    made = {}
    # an adapter's frozen parts are not saved under ZeRO-3: refused
    for name, block in [item for item in BLOCKS.items() if (zero, item[0]) != (3, "train_only")]:
        slm = {"stage": "tts", "units": {"count": UNITS}, **block}
        start = {"adapter_name_or_path": str(tmp_path / "asr")} if name == "lora_scale" else {}
        one = train_config(units_base, data, tmp_path / f"{name}1", "tts", slm=slm, **LINEAR, **start)
        made[name] = one | {"stage": "sft"}
        run_host(made[name])
    on_two_processes(
        [
            under_zero(
                zero, {**one, "output_dir": str(tmp_path / f"{name}2"), "per_device_train_batch_size": 2}, tmp_path
            )
            for name, one in made.items()
        ]
    )
    for name in made:
        written, expected = card.read(tmp_path / f"{name}2"), card.read(tmp_path / f"{name}1")
        assert written["replay"] == expected["replay"]
        assert written.get("lora_scale") == expected.get("lora_scale")
        plain, sharded = (load_file(tmp_path / f"{name}{n}" / "adapter_model.safetensors") for n in (1, 2))
        assert plain.keys() == sharded.keys()
        assert max((sharded[key].float() - plain[key].float()).abs().max().item() for key in plain) <= 2e-6, name


@pytest.mark.parametrize("tie", [False, True], ids=["untied", "tied"])
def test_zero_3_starts_units_in_the_padding_from_the_same_rows(
    tie,
    data,
    run_host,
    on_two_processes,  # the fixture
    tmp_path,
):
    text = make_model(tmp_path / "text", tie=tie, padding=271)
    # a rate of 0 saves the start
    config = train_config(text, data, tmp_path / "plain", max_steps=1, learning_rate=0.0)
    run_host(config)
    on_two_processes([under_zero(3, {**config, "output_dir": str(tmp_path / "sharded")}, tmp_path)])
    plain, sharded = (load_file(tmp_path / name / "adapter_model.safetensors") for name in ("plain", "sharded"))
    matrices = [name for name in plain if "lora" not in name]
    assert len(matrices) == 2
    for name in matrices:
        assert torch.equal(plain[name].float(), sharded[name].float()), name
