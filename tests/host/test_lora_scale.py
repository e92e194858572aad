"""``slm.lora_scale`` through the real host: export, sweep, chat and the next stage."""

from __future__ import annotations

import asyncio
import copy
import glob
import tempfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoTokenizer

from adapters.worlds import KINDS, TIED_KINDS, make_adapter
from host.world import UNITS, export_config, train_config
from slm_plugin import card
from slm_plugin.adapters.convert import convert
from slm_plugin.adapters.folded import FoldedCheckpoint
from slm_plugin.adapters.lora import LoraAdapter
from slm_plugin.adapters.serving import refusals
from slm_plugin.errors import ConfigError, WeightsError
from slm_plugin.weights.checkpoint import Checkpoint

pytestmark = [pytest.mark.host, pytest.mark.xdist_group("host")]

QUERY = "model.layers.0.self_attn.q_proj.weight"
EMBEDDING = "model.embed_tokens.weight"


def weights(folder):
    return load_file(folder / "model.safetensors")


def add_card(adapter, base):
    card.write(
        adapter,
        {
            "base": {"path": str(base), "fingerprint": card.fingerprint(base)},
            "units": {**card.read(base)["units"], "seed": 1126, "init": "mean"},
        },
    )
    return adapter


@pytest.fixture(scope="module")
def tied_base(tied_llm, run_host, tmp_path_factory):
    folder = tmp_path_factory.mktemp("bases") / "tied"
    run_host(export_config(tied_llm, folder))
    return folder


@pytest.fixture(scope="module")
def adapters(units_base, tmp_path_factory):
    """Random adapters of every kind on the units base."""
    folder = tmp_path_factory.mktemp("adapters")
    kinds = {name: options for name, options in KINDS.items() if name != "rows"}
    kinds["rows"] = {"trainable_token_indices": {"embed_tokens": [3, 520, 525], "lm_head": [1, 521]}}
    return {
        name: add_card(make_adapter(units_base, folder / name, **options), units_base)
        for name, options in kinds.items()
    }


@pytest.fixture
def export(units_base, run_host, tmp_path):
    """Export adapters with a block and return the weights."""

    def run(adapter, slm, base=units_base, dtype="float32"):
        given = ",".join(map(str, adapter)) if isinstance(adapter, list) else adapter
        run_host(export_config(base, tmp_path / "model", adapter=given, slm=slm, infer_dtype=dtype))
        return weights(tmp_path / "model")

    return run


def low_rank(adapter, module="model.layers.0.self_attn.q_proj"):
    saved = load_file(adapter / "adapter_model.safetensors")
    return tuple(saved[f"base_model.model.{module}.lora_{part}.weight"].double() for part in "BA")


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-6), ("bfloat16", 2**-8)])
@pytest.mark.parametrize(
    ("kind", "alpha_over_r"),
    # r 4, alpha 16: 16/4; rsLoRA 16/sqrt(4); with patterns layer 0's query has alpha 3 and r 2
    [("plain", 4.0), ("rslora", 8.0), ("patterns", 1.5)],
)
def test_an_export_is_the_base_plus_the_scaled_update(
    kind, alpha_over_r, dtype, tolerance, adapters, units_base, export
):
    exported = export(adapters[kind], {"lora_scale": 0.7}, dtype=dtype)
    up, down = low_rank(adapters[kind])
    expected = weights(units_base)[QUERY].double() + 0.7 * alpha_over_r * up @ down
    torch.testing.assert_close(exported[QUERY].double(), expected, rtol=tolerance, atol=1e-6)
    assert exported[QUERY].dtype == getattr(torch, dtype)


@pytest.mark.parametrize("interpolate", [False, True], ids=["leave", "interpolate"])
@pytest.mark.parametrize("kind", [*KINDS])
def test_every_kind_of_adapter_exports_as_its_formula(kind, interpolate, adapters, units_base, export):
    rule = "interpolate" if interpolate else "leave"
    exported = export(adapters[kind], {"lora_scale": 0.6, "scaled_modules": rule})
    expected = FoldedCheckpoint(Checkpoint(units_base), LoraAdapter(adapters[kind]), 0.6, interpolate)
    assert exported.keys() == set(expected.names())
    for name, tensor in exported.items():
        torch.testing.assert_close(tensor, expected.tensor(name), rtol=1e-5, atol=2e-6, msg=f"{kind} {name}")


@pytest.mark.parametrize("kind", TIED_KINDS)
def test_a_model_with_one_matrix_for_both_ends_is_discounted_too(kind, tied_base, export, tmp_path):
    options = TIED_KINDS[kind]
    if "trainable_token_indices" in options:
        options = {"trainable_token_indices": {"embed_tokens": [3, 520, 525]}}
    adapter = add_card(make_adapter(tied_base, tmp_path / "adapter", **options), tied_base)
    exported = export(adapter, {"lora_scale": 0.6, "scaled_modules": "interpolate"}, base=tied_base)
    expected = FoldedCheckpoint(Checkpoint(tied_base), LoraAdapter(adapter), 0.6, interpolate=True)
    for name, tensor in exported.items():
        torch.testing.assert_close(tensor, expected.tensor(name), rtol=1e-5, atol=2e-6, msg=name)


@pytest.mark.parametrize("kind", ["plain", "dora", "modules_to_save"])
def test_a_scale_of_1_changes_nothing(kind, adapters, export):
    plain = copy.deepcopy(export(adapters[kind], {}))
    scaled = export(adapters[kind], {"lora_scale": 1, "scaled_modules": "interpolate"})
    assert all(torch.equal(plain[name], scaled[name]) for name in plain)


def test_a_scale_of_1_makes_no_folder(adapters, export, monkeypatch):
    monkeypatch.setattr("slm_plugin.host.lora_scale.tempfile", None)
    export(adapters["dora"], {"lora_scale": 1.0})


@pytest.mark.parametrize("kind", ["plain", "dora", "rows", "modules_to_save"])
def test_a_scale_of_0_is_the_base_but_for_the_units(kind, adapters, units_base, export):
    exported = export(adapters[kind], {"lora_scale": 0, "scaled_modules": "interpolate"})
    first = card.read(units_base)["units"]["first_id"]
    for name, tensor in weights(units_base).items():
        kept = slice(0, first) if name in (EMBEDDING, "lm_head.weight") else slice(None)
        torch.testing.assert_close(exported[name][kept], tensor[kept], rtol=1e-5, atol=1e-6)


def test_interpolation_moves_text_rows_by_the_factor_and_leaves_unit_rows(adapters, units_base, export):
    exported = export(adapters["modules_to_save"], {"lora_scale": 0.25, "scaled_modules": "interpolate"})[EMBEDDING]
    base = weights(units_base)[EMBEDDING]
    trained = load_file(adapters["modules_to_save"] / "adapter_model.safetensors")[f"base_model.model.{EMBEDDING}"]
    first = card.read(units_base)["units"]["first_id"]
    assert torch.equal(exported[first : first + UNITS], trained[first : first + UNITS])
    torch.testing.assert_close(exported[:first], 0.75 * base[:first] + 0.25 * trained[:first])


def test_stacked_adapters_have_a_factor_each(adapters, units_base, export):
    first, second = adapters["plain"], adapters["patterns"]
    exported = export([first, second], {"lora_scale": {str(first): 0.5, f"{second}/": 0.25}})
    (up, down), (up_2, down_2) = low_rank(first), low_rank(second)
    expected = weights(units_base)[QUERY].double() + 0.5 * 4 * up @ down + 0.25 * 1.5 * up_2 @ down_2
    torch.testing.assert_close(exported[QUERY].double(), expected, rtol=1e-6, atol=1e-6)


def test_dora_over_another_adapter_moves_toward_what_lies_below_it(adapters, units_base, export):
    below, above = adapters["modules_to_save"], adapters["dora"]
    slm = {"lora_scale": {str(above): 0.5}}
    exported = export([below, above], slm)
    inner = FoldedCheckpoint(Checkpoint(units_base), LoraAdapter(below))
    expected = FoldedCheckpoint(inner, LoraAdapter(above), 0.5)
    for name, tensor in exported.items():
        torch.testing.assert_close(tensor, expected.tensor(name), rtol=1e-5, atol=2e-6, msg=name)


def test_a_sweep_writes_one_export_for_each_factor(adapters, units_base, run_host, tmp_path):
    adapter = adapters["plain"]
    run_host(export_config(units_base, tmp_path / "out", adapter=adapter, slm={"lora_scale": [1.0, 0.5, 0]}))
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [f"lora_scale_{s}" for s in (0.0, 0.5, 1.0)]
    up, down = low_rank(adapter)
    for factor in (1.0, 0.5, 0.0):
        folder = tmp_path / "out" / f"lora_scale_{factor}"
        expected = weights(units_base)[QUERY].double() + factor * 4 * up @ down
        torch.testing.assert_close(weights(folder)[QUERY].double(), expected, rtol=1e-6, atol=1e-6)
        found = card.read(folder)
        assert found["adapters"] == [str(adapter)]
        assert found["lora_scale"] == {str(adapter): factor}


def test_the_card_names_the_original_adapter_and_nothing_temporary_is_left(adapters, export, tmp_path, slm_log):
    export(adapters["dora"], {"lora_scale": 0.5, "scaled_modules": "interpolate"})
    found = card.read(tmp_path / "model")
    assert found["adapters"] == [str(adapters["dora"])]
    assert found["lora_scale"] == {str(adapters["dora"]): 0.5}
    assert found["scaled_modules"] == "interpolate"
    assert glob.glob(f"{tempfile.gettempdir()}/slm_lora_scale_*") == []
    assert f"lora_scale 0.5: {adapters['dora']}" in slm_log()


@pytest.fixture
def make_chat():
    """Make the host's chat models, and close the event loops that it leaves open."""
    from llamafactory.chat import ChatModel

    made = []

    def make(config):
        made.append(ChatModel(config))
        return made[-1]

    asyncio.set_event_loop(asyncio.new_event_loop())
    yield make
    for chat in made:
        chat._loop.call_soon_threadsafe(chat._loop.stop)
        chat._thread.join()
        chat._loop.close()
    asyncio.get_event_loop().close()
    asyncio.set_event_loop(None)


@pytest.mark.parametrize("kind", ["plain", "dora", "modules_to_save"])
def test_chat_loads_the_scaled_adapter(kind, adapters, units_base, make_chat):
    config = export_config(units_base, Path("unused"), adapter=adapters[kind], slm={"lora_scale": 0.3})
    del config["export_dir"], config["export_device"]
    chat = make_chat({**config, "max_new_tokens": 4, "do_sample": False})
    loaded = chat.engine.model.state_dict()
    expected = FoldedCheckpoint(Checkpoint(units_base), LoraAdapter(adapters[kind]), 0.3)
    for name in expected.names():
        torch.testing.assert_close(loaded[name], expected.tensor(name), rtol=1e-5, atol=2e-6, msg=name)
    assert len(chat.chat([{"role": "user", "content": "hello"}])) == 1


@pytest.fixture(scope="module")
def asr(units_base, data, run_host, tmp_path_factory):
    folder = tmp_path_factory.mktemp("scaled") / "asr"
    run_host(train_config(units_base, data, folder, max_steps=6))
    return folder


@pytest.mark.parametrize("rule", ["leave", "interpolate"])
def test_the_next_stage_starts_from_the_scaled_adapter(rule, asr, units_base, data, run_host, tmp_path):
    slm = {"stage": "tts", "units": {"count": UNITS}, "lora_scale": 0.5, "scaled_modules": rule}
    # a rate of 0 saves the start
    config = train_config(units_base, data, tmp_path / "tts", "tts", slm=slm, adapter_name_or_path=str(asr))
    run_host({**config, "learning_rate": 0.0, "max_steps": 1})
    before, after = LoraAdapter(asr), LoraAdapter(tmp_path / "tts")
    was, now = before.low_rank(QUERY), after.low_rank(QUERY)
    assert now.scale == was.scale
    assert torch.equal(now.down_RI, was.down_RI)
    torch.testing.assert_close(now.up_OR, 0.5 * was.up_OR)
    folded = FoldedCheckpoint(Checkpoint(units_base), before, 0.5, rule == "interpolate")
    start = FoldedCheckpoint(Checkpoint(units_base), after)
    for name in folded.names():
        torch.testing.assert_close(start.tensor(name), folded.tensor(name), rtol=1e-5, atol=1e-6, msg=name)
    found = card.read(tmp_path / "tts")
    assert found["lora_scale"] == {str(asr): 0.5}
    assert found["base"]["path"] == str(units_base)


def test_the_next_stage_starts_from_a_scaled_dora_adapter(adapters, units_base, data, run_host, tmp_path):
    # the adapter trains no unit rows, so a block that named units would be refused
    slm = {"stage": "tts", "lora_scale": 0.5}
    config = train_config(
        units_base, data, tmp_path / "tts", "tts", slm=slm, adapter_name_or_path=str(adapters["dora"]), use_dora=True
    )
    run_host({**config, "learning_rate": 0.0, "max_steps": 1})
    folded = FoldedCheckpoint(Checkpoint(units_base), LoraAdapter(adapters["dora"]), 0.5)
    start = FoldedCheckpoint(Checkpoint(units_base), LoraAdapter(tmp_path / "tts"))
    for name in folded.names():
        torch.testing.assert_close(start.tensor(name), folded.tensor(name), rtol=1e-5, atol=2e-6, msg=name)


def test_a_scale_of_1_trains_bit_identically(asr, units_base, data, run_host, tmp_path):
    for name, scale in (("without", {}), ("with", {"lora_scale": 1.0, "scaled_modules": "interpolate"})):
        slm = {"stage": "tts", "units": {"count": UNITS}, **scale}
        run_host(train_config(units_base, data, tmp_path / name, "tts", slm=slm, adapter_name_or_path=str(asr)))
    first, second = (load_file(tmp_path / name / "adapter_model.safetensors") for name in ("without", "with"))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_new_adapter_is_trained_over_the_scaled_one(asr, units_base, data, run_host, tmp_path):
    slm = {"stage": "tts", "units": {"count": UNITS}, "lora_scale": 0.5}
    config = train_config(units_base, data, tmp_path / "tts", "tts", slm=slm, adapter_name_or_path=str(asr))
    run_host({**config, "create_new_adapter": True, "learning_rate": 0.0, "max_steps": 1})
    # the start of the new adapter adds nothing, and its embeddings are those it was trained over
    assert not LoraAdapter(tmp_path / "tts").low_rank(QUERY).up_OR.any()
    assert torch.equal(LoraAdapter(tmp_path / "tts").replacement(EMBEDDING), LoraAdapter(asr).replacement(EMBEDDING))


@pytest.mark.parametrize(
    ("scale", "message"),
    [
        (-0.1, "must be a finite number of 0 or more, got -0.1"),
        (float("nan"), "must be a finite number of 0 or more, got nan"),
        (float("inf"), "must be a finite number of 0 or more, got inf"),
        ({"runs/as": 0.5}, "is not in adapter_name_or_path"),
        ([], "the list of factors is empty"),
        ([0.5, 0.5], "lists 0.5 more than once"),
        ([0.5, -1.0], r"lora_scale\[1\]: must be a finite number"),
    ],
)
def test_a_scale_that_makes_no_sense_is_refused(scale, message, adapters, export):
    with pytest.raises(ConfigError, match=message):
        export(adapters["plain"], {"lora_scale": scale})


def test_an_unknown_adapter_is_refused_with_the_nearest(adapters, export):
    wrong = f"{adapters['plain']}x"
    with pytest.raises(ConfigError, match=f"Did you mean '{adapters['plain']}'"):
        export(adapters["plain"], {"lora_scale": {wrong: 0.5}})


def test_a_scale_without_an_adapter_is_refused(units_base, run_host, tmp_path):
    with pytest.raises(ConfigError, match=r"0\.5 has nothing to act on: set adapter_name_or_path"):
        run_host(export_config(units_base, tmp_path / "model", slm={"lora_scale": 0.5}))


def test_a_sweep_in_training_is_refused_by_name(asr, units_base, data, run_host, tmp_path):
    slm = {"stage": "tts", "units": {"count": UNITS}, "lora_scale": [0.5, 1.0]}
    with pytest.raises(ConfigError, match="is a sweep, for llamafactory-cli export only"):
        run_host(train_config(units_base, data, tmp_path / "tts", "tts", slm=slm, adapter_name_or_path=str(asr)))


def test_a_sweep_in_chat_is_refused_by_name(adapters, units_base, make_chat):
    config = export_config(units_base, Path("unused"), adapter=adapters["plain"], slm={"lora_scale": [0.5]})
    del config["export_dir"], config["export_device"]
    with pytest.raises(ConfigError, match="is a sweep, for llamafactory-cli export only"):
        make_chat(config)


def test_an_adapter_of_another_base_is_refused_by_fingerprint(adapters, llm, run_host, tmp_path):
    run_host(export_config(llm, tmp_path / "other", slm={"units": {"count": UNITS, "seed": 5}}))
    with pytest.raises(ConfigError, match=r"was trained on .* \(fingerprint \w+\), not on .*/other \(fingerprint"):
        run_host(export_config(tmp_path / "other", tmp_path / "model", adapter=adapters["plain"], slm={}))
    assert not (tmp_path / "model").exists()


def test_an_adapter_that_diverged_is_refused(adapters, units_base, export, tmp_path):
    from safetensors.torch import save_file

    bad = tmp_path / "bad"
    bad.mkdir()
    saved = load_file(adapters["plain"] / "adapter_model.safetensors")
    next(iter(saved.values()))[0, 0] = float("nan")
    save_file(saved, bad / "adapter_model.safetensors")
    (bad / "adapter_config.json").write_text((adapters["plain"] / "adapter_config.json").read_text())
    with pytest.raises(WeightsError, match="holds values that are not finite"):
        export(bad, {})


def test_an_adapter_for_another_architecture_is_refused(adapters, units_base, export, tmp_path):
    from safetensors.torch import save_file

    bad = tmp_path / "bad"
    bad.mkdir()
    saved = load_file(adapters["plain"] / "adapter_model.safetensors")
    save_file(
        {name.replace("layers.1.", "layers.7."): x for name, x in saved.items()}, bad / "adapter_model.safetensors"
    )
    (bad / "adapter_config.json").write_text((adapters["plain"] / "adapter_config.json").read_text())
    with pytest.raises(
        WeightsError, match=r"changes 3 weight\(s\) that its base does not have, such as 'model\.layers\.7"
    ):
        export(bad, {})


def test_a_misspelt_adapter_folder_is_refused_with_the_nearest(adapters, units_base, run_host, tmp_path):
    wrong = f"{adapters['plain']}s"
    with pytest.raises(ConfigError, match=f"{wrong} is not a folder. Did you mean '{adapters['plain']}'"):
        run_host(export_config(units_base, tmp_path / "model", adapter=wrong, slm={}))


def test_an_incomplete_adapter_is_refused_before_anything_is_loaded(units_base, run_host, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match=r"lacks adapter_config.json and adapter_model.safetensors"):
        run_host(export_config(units_base, tmp_path / "model", adapter=tmp_path / "empty", slm={}))


def test_an_expert_trained_without_units_on_the_units_base_is_plain_lora(units_base, data, run_host, tmp_path):
    run_host(train_config(units_base, data, tmp_path / "expert", slm={"stage": "asr"}))
    assert refusals(tmp_path / "expert", units_base) == []


def test_a_stage_adapter_is_not_plain_lora_and_converts(asr, units_base, tmp_path):
    assert "trained in full" in refusals(asr, units_base)[0]
    convert(asr, units_base, tmp_path / "out")
    assert refusals(tmp_path / "out" / "adapter", tmp_path / "out" / "base") == []
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out" / "base")
    assert len(tokenizer) == len(AutoTokenizer.from_pretrained(units_base))
    extended = FoldedCheckpoint(Checkpoint(tmp_path / "out" / "base"), LoraAdapter(tmp_path / "out" / "adapter"))
    original = FoldedCheckpoint(Checkpoint(units_base), LoraAdapter(asr))
    assert all(torch.equal(extended.tensor(name), original.tensor(name)) for name in original.names())


def test_a_merge_takes_no_scale(units_base, llm, run_host, tmp_path):
    models = [{"model": str(model), "weight": 0.5} for model in (units_base, llm)]
    merge = {"method": "linear", "models": models}
    with pytest.raises(ConfigError, match="lora_scale: does not act on a merge"):
        run_host(export_config(units_base, tmp_path / "model", slm={"lora_scale": 0.5, "merge": merge}))
