from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from adapters.worlds import KINDS, make_adapter, make_base, merged
from slm_plugin.errors import WeightsError
from slm_plugin.plugins import Registry
from slm_plugin.report.collect import ReportOptions, collect
from slm_plugin.report.content import Drift
from slm_plugin.report.drift import adapter_drift, model_drift, split_name


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_base(tmp_path_factory.mktemp("drift") / "base")


def relative(drift: Drift) -> dict[tuple[str, str], float]:
    return {(cell.layer, cell.kind): cell.relative for cell in drift.cells}


@pytest.mark.parametrize("kind", ["plain", "rslora", "dora", "modules_to_save", "rows"])
def test_the_drift_of_an_adapter_is_that_of_the_model_which_peft_makes_of_it(kind: str, base: Path, tmp_path: Path):
    adapter = make_adapter(base, tmp_path / "adapter", **KINDS[kind])
    found = relative(adapter_drift(adapter, base, "adapter", "base"))
    before, after = load_file(base / "model.safetensors"), merged(base, adapter)
    for name, weight in before.items():
        moved = float((after[name] - weight).norm() / weight.norm())
        if moved > 1e-6:
            assert found.pop(split_name(name)) == pytest.approx(moved, rel=1e-5)
    assert not found


def test_layers_and_the_whole_take_their_weights_as_one_long_vector(base: Path, tmp_path: Path):
    adapter = make_adapter(base, tmp_path / "adapter")
    found = adapter_drift(adapter, base, "adapter", "base")
    before, after = load_file(base / "model.safetensors"), merged(base, adapter)
    layer = [name for name in before if ".layers.1." in name and name.rsplit(".", 2)[1] in dict(named(found, "1"))]
    changed = torch.cat([(after[name] - before[name]).flatten() for name in layer])
    start = torch.cat([before[name].flatten() for name in layer])
    assert found.layers["1"] == pytest.approx(float(changed.norm() / start.norm()), rel=1e-5)
    assert list(found.layers) == ["0", "1"]


def named(drift: Drift, layer: str) -> list[tuple[str, float]]:
    return [(cell.kind, cell.relative) for cell in drift.cells if cell.layer == layer]


def test_the_drift_of_a_full_model_is_the_difference_and_new_rows_are_left_out(base: Path, tmp_path: Path):
    weights = load_file(base / "model.safetensors")
    grown = dict(weights)
    # every number doubled: a drift of 1; two further rows that the base does not have
    grown["lm_head.weight"] = torch.cat([2 * weights["lm_head.weight"], torch.full((2, 32), 1e6)])
    (tmp_path / "grown").mkdir()
    save_file(grown, tmp_path / "grown/model.safetensors", {"format": "pt"})
    found = relative(model_drift(tmp_path / "grown", base, "grown", "base"))
    assert found["other", "lm_head"] == pytest.approx(1.0)
    assert all(moved == 0.0 for key, moved in found.items() if key != ("other", "lm_head"))


def test_an_adapter_of_another_base_is_refused(base: Path, tmp_path: Path):
    adapter = make_adapter(base, tmp_path / "adapter")
    other = make_base(tmp_path / "other", seed=5)
    with pytest.raises(WeightsError, match="was trained on"):
        adapter_drift(adapter, other, "adapter", "other")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("model.layers.3.self_attn.q_proj.weight", ("3", "q_proj")),
        ("model.encoder.layers.0.fc1.bias", ("encoder 0", "fc1")),
        ("model.embed_tokens.weight", ("other", "embed_tokens")),
        ("transformer.h.11.attn.c_attn.weight", ("11", "c_attn")),
    ],
)
def test_names_of_weights_are_split_into_layer_and_kind(name: str, expected: tuple[str, str]):
    assert split_name(name) == expected


def test_adapters_of_a_run_are_compared_with_the_base_that_they_name(base: Path, tmp_path: Path, registry: Registry):
    run = tmp_path / "run"
    (run / "scores").mkdir(parents=True)
    make_adapter(base, run / "asr")
    (run / "scores/asr.json").write_text('{"text": {"value": 1.0, "n": 1, "better": "higher"}}')
    found = collect([run], ReportOptions(), registry).runs[0]
    assert [(drift.name, drift.base) for drift in found.drifts] == [("asr", "base")]
    (run / "asr/adapter_model.safetensors").write_bytes(b"damaged")
    damaged = collect([run], ReportOptions(), registry).runs[0]
    assert not damaged.drifts
    assert any("were not compared" in note for note in damaged.notes)
    (run / "asr/adapter_config.json").write_text("{")
    damaged = collect([run], ReportOptions(), registry).runs[0]
    assert any("were not compared" in note for note in damaged.notes)


def test_a_model_that_a_step_exported_is_compared_with_the_one_of_its_yaml(base: Path, tmp_path: Path, registry):
    run = tmp_path / "run"
    make_base(run / "model", seed=3)
    config = {"model_name_or_path": str(base), "export_dir": str(run / "model")}
    entry = {"definition": {"name": "export", "export": "export.yaml"}, "config": config}
    (run / "lineage.json").write_text(json.dumps({"export": entry | {"outputs": {str(run / "model"): "a"}}}))
    (drift,) = collect([run], ReportOptions(), registry).runs[0].drifts
    assert (drift.name, drift.base) == ("model", "base")
    # two independent draws of one width are about the square root of 2 apart
    assert drift.layers["0"] == pytest.approx(2**0.5, rel=0.1)
