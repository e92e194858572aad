"""The block under DeepSpeed ZeRO-2 and ZeRO-3 on the CPU; the first run builds an operator for minutes."""

from __future__ import annotations

import pytest
from safetensors.torch import load_file

from host.test_command_line import host
from host.world import UNITS, train_config, under_zero
from slm_plugin import card

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

# a weight's step must not depend on the sign of a gradient that is all rounding, as Adam's would
LINEAR = {"optim": "sgd", "learning_rate": 0.1, "disable_shuffling": True}


@pytest.fixture(scope="module")
def asr(units_base, data, run_host, tmp_path_factory):
    folder = tmp_path_factory.mktemp("zero") / "asr"
    run_host(train_config(units_base, data, folder, max_steps=6))
    return folder


@pytest.mark.parametrize("zero", [2, 3])
@pytest.mark.parametrize(
    "block",
    [
        {"mitigations": [{"replay": {"sources": {"llm": 0.5}}}]},
        {"mitigations": [{"llrd": {"alpha": 0.5}}]},
        {"mitigations": [{"train_only": {"parts": ["attention"]}}]},
        {"lora_scale": 0.5, "scaled_modules": "interpolate"},
    ],
    ids=lambda block: next(iter(block.get("mitigations", [block])[0])),
)
def test_zero_trains_to_the_same_weights_as_one_plain_process(zero, block, asr, units_base, data, run_host, tmp_path):
    slm = {"stage": "tts", "units": {"count": UNITS}, **block}
    start = {"adapter_name_or_path": str(asr)} if "lora_scale" in block else {}
    one = {**train_config(units_base, data, tmp_path / "one", "tts", slm=slm, **LINEAR, **start), "stage": "sft"}
    run_host(one)
    two = {**one, "output_dir": str(tmp_path / "two"), "per_device_train_batch_size": 2}
    two = under_zero(zero, two, tmp_path)
    done = host("train", two, tmp_path, FORCE_TORCHRUN="1", NPROC_PER_NODE="2")
    assert done.returncode == 0, done.stderr[-3000:]
    written, expected = card.read(tmp_path / "two"), card.read(tmp_path / "one")
    assert written["replay"] == expected["replay"]
    assert written.get("lora_scale") == expected.get("lora_scale")
    plain, sharded = (load_file(tmp_path / name / "adapter_model.safetensors") for name in ("one", "two"))
    assert plain.keys() == sharded.keys()
    assert max((sharded[name].float() - plain[name].float()).abs().max().item() for name in plain) <= 2e-6
