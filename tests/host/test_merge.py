"""``llamafactory-cli export`` with ``slm.merge``: full models and stage adapters, tied and untied."""

from __future__ import annotations

import json

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from host.world import UNITS, export_config, train_config
from slm_plugin import card
from slm_plugin.errors import ConfigError, WeightsError

pytestmark = [pytest.mark.host, pytest.mark.xdist_group("host")]


@pytest.fixture(scope="module", params=["untied", "tied"])
def world(request, llm, tied_llm, data, run_host, tmp_path_factory):
    """A text model, its units base, and two stage adapters on that."""
    folder = tmp_path_factory.mktemp(f"merge_{request.param}")
    text = llm if request.param == "untied" else tied_llm
    run_host(export_config(text, folder / "base"))
    run_host(train_config(folder / "base", data, folder / "asr"))
    run_host(train_config(folder / "base", data, folder / "tts", stage="tts"))
    return {"text": text, **{name: folder / name for name in ("base", "asr", "tts")}}


def merge_config(world, output, method="linear", members=(("asr", 0.6), ("tts", 0.3)), base="base", **changes):
    models = [{"model": str(world[name]), "weight": weight} for name, weight in members]
    block = {"method": method, "base_model": str(world[base]), "models": models, **changes.pop("merge", {})}
    return export_config(world["base"], output, slm={"merge": block}, **changes)


def folded(world, name):
    base = AutoModelForCausalLM.from_pretrained(world["base"], dtype=torch.float32)
    return PeftModel.from_pretrained(base, world[name]).merge_and_unload().state_dict()


def test_the_average_of_two_stage_adapters_is_that_of_the_models_they_make(world, run_host, tmp_path):
    run_host(merge_config(world, tmp_path / "model"))
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "model", dtype=torch.float32).state_dict()
    asr, tts = folded(world, "asr"), folded(world, "tts")
    for name, tensor in merged.items():
        expected = (0.6 * asr[name].double() + 0.3 * tts[name].double()) / 0.9
        torch.testing.assert_close(tensor.double(), expected, rtol=0, atol=1e-7, msg=name)


@pytest.mark.parametrize("method", ["ties", "dare_ties", "task_arithmetic"])
def test_adapters_merge_as_the_models_they_make_do(world, run_host, tmp_path, method):
    """The same members as full models give the same result."""
    for name in ("asr", "tts"):
        run_host(export_config(world["base"], tmp_path / name, adapter=world[name], slm={}))
    full = {**world, "asr": tmp_path / "asr", "tts": tmp_path / "tts"}
    run_host(merge_config(world, tmp_path / "from_adapters", method))
    run_host(merge_config(full, tmp_path / "from_models", method))
    one, other = (load_file(tmp_path / name / "model.safetensors") for name in ("from_adapters", "from_models"))
    assert one.keys() == other.keys()
    for name in one:
        torch.testing.assert_close(one[name], other[name], rtol=0, atol=1e-6, msg=name)


def test_the_result_is_a_whole_model_folder(world, run_host, tmp_path, slm_log):
    config = merge_config(world, tmp_path / "model", infer_dtype="bfloat16")
    run_host(config)
    folder = tmp_path / "model"
    weights = load_file(folder / "model.safetensors")
    assert {tensor.dtype for tensor in weights.values()} == {torch.bfloat16}
    written = json.loads((folder / "config.json").read_text())
    assert written["vocab_size"] == len(weights["model.embed_tokens.weight"])
    assert written["dtype"] == "bfloat16"
    assert (folder / "generation_config.json").is_file()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert len(tokenizer) == len(AutoTokenizer.from_pretrained(world["base"]))
    chat = tokenizer.apply_chat_template([{"role": "user", "content": "hello"}], tokenize=False)
    assert chat == "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\nhello<|eot_id|>"
    found = card.read(folder)
    assert found["units"]["count"] == UNITS
    assert found["base"]["fingerprint"] == card.fingerprint(world["base"])
    assert [member["options"] for member in found["merge"]["members"]] == [{"weight": 0.6}, {"weight": 0.3}]
    assert found["merge"]["members"][0]["fingerprint"] == card.fingerprint(world["asr"])
    assert "merged 2 models by linear" in slm_log()


def test_plugins_hear_of_the_merged_model_once_it_is_in_place(world, run_host, tmp_path, monkeypatch):
    from slm_plugin import hookimpl
    from slm_plugin.host import runtime

    heard = []

    class Listener:
        @hookimpl
        def slm_export(self, export_dir):
            heard.append((export_dir, (export_dir / "model.safetensors").is_file()))

    activate = runtime.activate

    def listening(config):
        found = activate(config)
        if found is not None:
            found.hooks.register(Listener())
        return found

    monkeypatch.setattr(runtime, "activate", listening)
    run_host(merge_config(world, tmp_path / "model"))
    assert heard == [(tmp_path / "model", True)]


def test_the_host_trains_on_and_exports_a_merged_model(world, data, run_host, tmp_path):
    run_host(merge_config(world, tmp_path / "model"))
    run_host(train_config(tmp_path / "model", data, tmp_path / "sqa", stage="sqa"))
    run_host(export_config(tmp_path / "model", tmp_path / "final", adapter=tmp_path / "sqa", slm={}))
    assert card.read(tmp_path / "final")["base"]["fingerprint"] == card.fingerprint(tmp_path / "model")


def test_a_text_model_without_units_takes_no_part_in_unit_rows(world, run_host, tmp_path):
    """The reference's linear recipe counts the text model, which has no units, with a weight of its own."""
    members = (("text", 0.4), ("asr", 0.4), ("tts", 0.2))
    run_host(merge_config(world, tmp_path / "model", members=members))
    merged = load_file(tmp_path / "model" / "model.safetensors")
    text, asr, tts = load_file(world["text"] / "model.safetensors"), folded(world, "asr"), folded(world, "tts")
    n_text = len(AutoTokenizer.from_pretrained(world["text"]))
    n_all = len(AutoTokenizer.from_pretrained(world["base"]))
    assert n_all == n_text + UNITS
    for name in [name for name in ("model.embed_tokens.weight", "lm_head.weight") if name in merged]:
        common = 0.4 * text[name][:n_text] + 0.4 * asr[name][:n_text] + 0.2 * tts[name][:n_text]
        torch.testing.assert_close(merged[name][:n_text], common, rtol=0, atol=1e-6)
        # .4 and .2 of .6
        units = (asr[name][n_text:n_all] * 2 + tts[name][n_text:n_all]) / 3
        torch.testing.assert_close(merged[name][n_text:n_all], units, rtol=0, atol=1e-6)
        assert torch.equal(merged[name][n_all:], asr[name][n_all:])


@pytest.mark.parametrize("method", ["ties", "dare_linear"])
def test_adapters_on_the_units_base_are_merged_over_the_text_model(world, run_host, tmp_path, method):
    """The reference's recipes take differences from the text LLM, which has no units."""
    for name in ("asr", "tts"):
        run_host(export_config(world["base"], tmp_path / name, adapter=world[name], slm={}))
    full = {**world, "asr": tmp_path / "asr", "tts": tmp_path / "tts"}
    run_host(merge_config(world, tmp_path / "from_adapters", method, base="text"))
    run_host(merge_config(full, tmp_path / "from_models", method, base="text"))
    one, other = (load_file(tmp_path / name / "model.safetensors") for name in ("from_adapters", "from_models"))
    assert one.keys() == other.keys()
    for name in one:
        torch.testing.assert_close(one[name], other[name], rtol=0, atol=1e-6, msg=name)
    text = load_file(world["text"] / "model.safetensors")["model.embed_tokens.weight"]
    assert len(one["model.embed_tokens.weight"]) > len(text)


def test_export_size_spreads_the_weights(world, run_host, tmp_path, monkeypatch):
    monkeypatch.setattr("slm_plugin.host.merge.BYTES_PER_GB", 100_000)
    run_host(merge_config(world, tmp_path / "model", export_size=1))
    assert len(list((tmp_path / "model").glob("model-*.safetensors"))) > 1
    AutoModelForCausalLM.from_pretrained(tmp_path / "model")


def test_what_does_not_go_with_a_merge_is_refused_at_once(world, run_host, tmp_path):
    config = merge_config(world, tmp_path / "model", adapter_name_or_path=str(world["asr"]), finetuning_type="lora")
    config["export_hub_model_id"] = "someone/something"
    with pytest.raises(ConfigError) as caught:
        run_host(config)
    assert "adapter_name_or_path: does not go with slm.merge" in str(caught.value)
    assert "export_hub_model_id: does not go with slm.merge" in str(caught.value)
    assert not (tmp_path / "model").exists()


def test_an_adapter_for_another_base_is_refused_by_its_fingerprint(world, llm, tied_llm, run_host, tmp_path):
    """The other base has the same architecture, shapes and names."""
    tensors = {name: tensor * 1.5 for name, tensor in load_file(world["base"] / "model.safetensors").items()}
    other = tmp_path / "other"
    other.mkdir()
    for path in world["base"].iterdir():
        (other / path.name).write_bytes(path.read_bytes())
    save_file(tensors, other / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(WeightsError, match=r"was trained on .* not on .*other") as caught:
        run_host(merge_config({**world, "other": other}, tmp_path / "model", base="other"))
    assert card.fingerprint(world["base"]) in str(caught.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other"]


def test_an_earlier_export_stays_when_the_merge_fails(world, run_host, tmp_path):
    run_host(merge_config(world, tmp_path / "model"))
    before = {path.name: path.read_bytes() for path in (tmp_path / "model").iterdir()}
    with pytest.raises(WeightsError, match="nowhere"):
        run_host(merge_config({**world, "tts": tmp_path / "nowhere"}, tmp_path / "model"))
    assert {path.name: path.read_bytes() for path in (tmp_path / "model").iterdir()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
