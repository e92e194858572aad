"""The block under DeepSpeed ZeRO-2 and ZeRO-3 on the CPU; the first run builds an operator for minutes."""

from __future__ import annotations

import json

import pytest
from safetensors.torch import load_file

from host.test_command_line import host
from host.world import UNITS, train_config
from slm_plugin import card

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]


@pytest.mark.parametrize("zero", [2, 3])
def test_zero_trains_to_the_same_weights_as_one_plain_process(zero, units_base, data, run_host, tmp_path):
    pytest.importorskip("deepspeed", reason="pip install 'slm-plugin[deepspeed]'")
    settings = {
        "train_batch_size": "auto",
        "train_micro_batch_size_per_gpu": "auto",
        "gradient_accumulation_steps": "auto",
        "gradient_clipping": "auto",
        "zero_allow_untested_optimizer": True,
        "zero_optimization": {"stage": zero, "stage3_gather_16bit_weights_on_model_save": True},
    }
    (tmp_path / "zero.json").write_text(json.dumps(settings))
    slm = {"stage": "tts", "units": {"count": UNITS}, "mitigations": [{"replay": {"sources": {"llm": 0.5}}}]}
    config = train_config(units_base, data, tmp_path / "plain", stage="tts", slm=slm)
    run_host(config)
    # DeepSpeed refuses the CPU where the host is told to use it by name
    zeroed = {**config, "use_cpu": False, "deepspeed": str(tmp_path / "zero.json")}
    zeroed["output_dir"] = str(tmp_path / "zero")
    done = host("train", zeroed, tmp_path, FORCE_TORCHRUN="1", NPROC_PER_NODE="2")
    assert done.returncode == 0, done.stderr[-3000:]
    assert card.read(tmp_path / "zero")["replay"] == {"llm": 20}
    plain, sharded = (load_file(tmp_path / name / "adapter_model.safetensors") for name in ("plain", "zero"))
    assert plain.keys() == sharded.keys()
    assert all(sharded[name].shape == plain[name].shape for name in plain)
