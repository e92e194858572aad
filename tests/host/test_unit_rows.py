"""Unit rows by the ids of their tokens: start values on padded models, and which rows train.

Padded rows hold one value that no other row has, so a unit row or a mean that was made from them shows.
"""

from __future__ import annotations

import json
import re
import shutil

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GPT2Config,
    GPT2LMHeadModel,
    PhiConfig,
    PhiForCausalLM,
)

from host.world import PLAIN, UNITS, export_config, train_config
from slm_plugin import card
from slm_plugin.errors import ConfigError, WeightsError
from slm_plugin.vocabulary import UnitVocabulary
from tiny_models import PADDING_VALUE, make_model, make_tokenizer

pytestmark = [pytest.mark.host, pytest.mark.xdist_group("host")]

TABLE, HEAD = "model.embed_tokens.weight", "lm_head.weight"
PADDING = 271
"""Rows of Qwen 2.5 behind its last token."""
SLM = {"stage": "asr", "units": {"count": UNITS}}
ROWS = {**SLM, "train_units": "rows"}
KINDS = pytest.mark.parametrize("kind", ["untied", "tied"])


@pytest.fixture(scope="module")
def worlds(run_host, data, tmp_path_factory):
    """By kind: a padded text LLM, its units base, and adapters that were trained without a block."""
    found = {}
    for kind in ("untied", "tied"):
        folder = tmp_path_factory.mktemp(kind)
        text = make_model(folder / "text", tie=kind == "tied", padding=PADDING)
        run_host(export_config(text, folder / "base"))
        for name, model, changes in (
            ("lora", folder / "base", {}),
            ("both", folder / "base", {"additional_target": "embed_tokens,lm_head"}),
            ("no_units", text, {"additional_target": "embed_tokens,lm_head"}),
        ):
            run_host(train_config(model, data, folder / name, slm=None, dataset=PLAIN, **changes))
        run_host(train_config(folder / "base", data, folder / "rows", slm=ROWS))
        found[kind] = {name: folder / name for name in ("text", "base", "lora", "both", "no_units", "rows")}
    return found


def weights(folder):
    return load_file(folder / "model.safetensors")


def trained(folder):
    return load_file(folder / "adapter_model.safetensors")


def equal(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@KINDS
@pytest.mark.parametrize("init", ["mean", "covariance"])
@pytest.mark.parametrize("count", [UNITS, 300])
def test_units_in_the_padding_start_from_the_rows_of_known_tokens(kind, init, count, worlds, run_host, tmp_path):
    text = worlds[kind]["text"]
    run_host(export_config(text, tmp_path / "base", slm={"units": {"count": count, "init": init}}))
    before, after = weights(text), weights(tmp_path / "base")
    first = len(AutoTokenizer.from_pretrained(text))
    assert UnitVocabulary.find(AutoTokenizer.from_pretrained(tmp_path / "base")) == UnitVocabulary(first, count)
    assert (HEAD in after) == (kind == "untied")
    for name in before.keys() & {TABLE, HEAD}:
        known, units = before[name][:first], after[name][first : first + count]
        assert torch.equal(after[name][:first], known)
        # the padding is 0.5 above the mean of the known rows: one padded row in ten would move the mean by 0.05
        assert abs(float(units.mean() - known.mean())) < 0.01
        expected = units.shape[1] ** -0.5 if init == "mean" else 0.0
        assert float((units - known.mean(0)).std()) == pytest.approx(expected, rel=0.1, abs=1e-4)
        if count < PADDING:
            assert torch.all(after[name][first + count :] == PADDING_VALUE)


@KINDS
def test_a_padded_base_is_the_start_of_stage_one_and_is_extended_once(kind, worlds, data, run_host, tmp_path):
    text, base = worlds[kind]["text"], worlds[kind]["base"]
    for name, changes in (("again", {}), ("resized", {"resize_vocab": True})):
        run_host(export_config(base, tmp_path / name, **changes))
        assert (tmp_path / name / "model.safetensors").read_bytes() == (base / "model.safetensors").read_bytes()
    run_host(train_config(text, data, tmp_path / "direct"))
    run_host(train_config(base, data, tmp_path / "based"))
    assert equal(trained(tmp_path / "direct"), trained(tmp_path / "based"))
    run_host(export_config(text, tmp_path / "model", adapter=tmp_path / "direct", slm={}))
    run_host(export_config(base, tmp_path / "from_base", adapter=tmp_path / "based", slm={}))
    assert equal(weights(tmp_path / "model"), weights(tmp_path / "from_base"))


def test_a_model_without_padding_starts_from_the_rows_of_earlier_releases(llm, units_base):
    first = len(AutoTokenizer.from_pretrained(llm))
    found = weights(units_base)
    # what 0.1.0 wrote: the host's own noise, seeded
    expected = {TABLE: [0.120856, -0.120495, -0.052584], HEAD: [-0.192444, 0.155077, -0.116658]}
    for name, values in expected.items():
        torch.testing.assert_close(found[name][first, :3], torch.tensor(values), rtol=0, atol=1e-5)


def test_tokens_of_the_host_in_the_padding_are_reported_and_left_out_of_the_mean(worlds, run_host, tmp_path, slm_log):
    run_host(export_config(worlds["tied"]["text"], tmp_path / "base", add_special_tokens="<x>,<y>"))
    first = card.read(tmp_path / "base")["units"]["first_id"]
    table = weights(tmp_path / "base")[TABLE]
    assert torch.all(table[first - 2 : first] == PADDING_VALUE)
    assert torch.equal(table[first : first + UNITS], weights(worlds["tied"]["base"])[TABLE][first - 2 :][:UNITS])
    assert f"tokens {first - 2}..{first - 1} of add_tokens or add_special_tokens keep the values" in slm_log()


def test_a_merge_takes_unit_rows_from_the_base_that_has_them(worlds, run_host, tmp_path):
    """The text LLM is as high as the units base, and its rows at the ids of the units are padding."""
    world = worlds["tied"]
    models = [{"model": str(world[name]), "weight": 0.5} for name in ("lora", "rows")]
    block = {"method": "task_arithmetic", "base_model": str(world["text"]), "models": models}
    run_host(export_config(world["base"], tmp_path / "merged", slm={"merge": block}))
    first = card.read(world["base"])["units"]["first_id"]
    units = slice(first, first + UNITS)
    base = weights(world["base"])[TABLE]
    folded = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(world["base"]), world["rows"])
    rows = folded.merge_and_unload().state_dict()[TABLE]
    torch.testing.assert_close(weights(tmp_path / "merged")[TABLE][units], (base[units] + rows[units]) / 2)
    assert card.read(tmp_path / "merged")["units"]["first_id"] == first


@KINDS
def test_an_adapter_without_units_cannot_fill_the_rows_of_new_ones(kind, worlds, data, run_host, tmp_path):
    text, adapter = worlds[kind]["text"], worlds[kind]["no_units"]
    for config in (
        train_config(text, data, tmp_path / "x", adapter_name_or_path=str(adapter)),
        train_config(text, data, tmp_path / "x", adapter_name_or_path=str(adapter), create_new_adapter=True),
        export_config(text, tmp_path / "x", adapter=adapter),
    ):
        with pytest.raises(WeightsError, match=r"was trained without units and replaces .*export it into a model"):
            run_host(config)


def test_an_adapter_whose_units_have_other_ids_is_refused(worlds, run_host, tmp_path):
    world = worlds["untied"]
    with pytest.raises(WeightsError, match=r"has its units at token 469, this model at 470: start from the model"):
        run_host(export_config(world["text"], tmp_path / "x", adapter=world["both"], add_tokens="<x>"))


REFUSED = {
    "freeze": ({"finetuning_type": "freeze"}, "Set freeze_extra_modules: embed_tokens{head}."),
    "freeze_others": (
        {"finetuning_type": "freeze", "freeze_extra_modules": "norm"},
        "Set freeze_extra_modules: norm,embed_tokens{head}.",
    ),
    "foreign": ({"adapter": "lora"}, "lora is continued as it was made. Set create_new_adapter: true"),
    "rows_to_modules": ({"adapter": "rows"}, "set train_units: rows to go on as that adapter was trained"),
    "modules_to_rows": ({"adapter": "both", "slm": ROWS}, "set train_units: modules to go on as"),
    "targets": ({"additional_target": "norm"}, "Set additional_target: embed_tokens{head},norm, or leave it out."),
    "targets_new": (
        {"additional_target": "norm", "adapter": "lora", "create_new_adapter": True},
        "Set additional_target: embed_tokens{head},norm, or leave it out.",
    ),
    "rows_and_targets": (
        {"additional_target": "embed_tokens,lm_head", "slm": ROWS},
        "additional_target names embed_tokens, lm_head, which trains whole matrices. Take them out",
    ),
    "rows_and_head": ({"additional_target": "lm_head", "slm": ROWS}, "additional_target names lm_head, which trains"),
    "low_rank_table": ({"lora_target": "q_proj,embed_tokens"}, "lora_target names embed_tokens"),
    "low_rank_head": ({"lora_target": "q_proj,lm_head", "slm": ROWS}, "lora_target names lm_head"),
}


@KINDS
@pytest.mark.parametrize("case", REFUSED)
def test_a_run_that_would_not_train_the_promised_rows_is_refused(kind, case, worlds, data, run_host, tmp_path):
    changes, message = REFUSED[case]
    changes = dict(changes)
    if "adapter" in changes:
        changes["adapter_name_or_path"] = str(worlds[kind][changes.pop("adapter")])
    message = message.format(head=",lm_head" if kind == "untied" else "")
    with pytest.raises(ConfigError, match=re.escape(message)):
        run_host(train_config(worlds[kind]["base"], data, tmp_path / "x", **changes))
    assert not (tmp_path / "x" / "adapter_model.safetensors").exists()


def make_other(folder, kind):
    """Write a padded model of another architecture with the tokenizer of the others: GPT-2 is tied, Phi has a bias."""
    tokenizer = make_tokenizer()
    rows, names = len(tokenizer) + PADDING, {"eos_token_id": tokenizer.eos_token_id, "bos_token_id": 0}
    if kind == "gpt2":
        config = GPT2Config(vocab_size=rows, n_embd=32, n_layer=1, n_head=1, n_positions=512, **names)
        model = GPT2LMHeadModel(config)
    else:
        sizes = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 1}
        model = PhiForCausalLM(PhiConfig(vocab_size=rows, max_position_embeddings=512, **sizes, **names))
        with torch.no_grad():
            model.lm_head.bias[: len(tokenizer)] = torch.arange(len(tokenizer)) / len(tokenizer)
            model.lm_head.bias[len(tokenizer) :] = PADDING_VALUE * 100
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.mark.parametrize(
    ("kind", "changes", "message"),
    [
        (
            "gpt2",
            {"lora_target": "c_attn"},
            "a copy of wte that the tied head does not use",
        ),
        ("gpt2", {"finetuning_type": "freeze"}, "Set freeze_extra_modules: wte."),
        ("phi", {"slm": ROWS}, "rows cannot be trained in lm_head, because PEFT leaves its bias out"),
        ("phi", {"finetuning_type": "freeze"}, "Set freeze_extra_modules: embed_tokens,lm_head."),
    ],
)
def test_other_architectures_are_refused_by_the_names_of_their_modules(
    kind, changes, message, data, run_host, tmp_path
):
    model = make_other(tmp_path / kind, kind)
    with pytest.raises(ConfigError, match=re.escape(message)):
        run_host(train_config(model, data, tmp_path / "x", **changes))


def test_the_bias_of_a_head_starts_at_the_mean_of_the_known_tokens(run_host, tmp_path):
    model = make_other(tmp_path / "phi", "phi")
    run_host(export_config(model, tmp_path / "base"))
    before, after = weights(model)["lm_head.bias"], weights(tmp_path / "base")["lm_head.bias"]
    first = card.read(tmp_path / "base")["units"]["first_id"]
    torch.testing.assert_close(after[first : first + UNITS], before[:first].mean().expand(UNITS))
    assert torch.equal(after[:first], before[:first])
    assert torch.equal(after[first + UNITS :], before[first + UNITS :])


@pytest.mark.parametrize("target", ["embed_tokens", "lm_head"])
def test_one_of_two_matrices_is_refused(target, worlds, data, run_host, tmp_path):
    message = re.escape("Set additional_target: embed_tokens,lm_head, or leave it out.")
    with pytest.raises(ConfigError, match=message):
        run_host(train_config(worlds["untied"]["base"], data, tmp_path / "x", additional_target=target))
    config = {"finetuning_type": "freeze", "freeze_extra_modules": target}
    with pytest.raises(ConfigError, match=r"Set freeze_extra_modules: .*lm_head"):
        run_host(train_config(worlds["untied"]["base"], data, tmp_path / "x", **config))


def test_oft_of_a_tied_model_is_refused(worlds, data, run_host, tmp_path):
    changes = {"finetuning_type": "oft", "oft_block_size": 32, "oft_rank": 0}
    with pytest.raises(ConfigError, match="OFT trains a copy of tied embeddings and leaves the head as it was"):
        run_host(train_config(worlds["tied"]["base"], data, tmp_path / "x", **changes))


def test_badam_is_refused_before_anything_is_loaded(data, run_host, tmp_path, monkeypatch):
    # its package is not part of the test environment
    monkeypatch.setenv("DISABLE_VERSION_CHECK", "1")
    monkeypatch.setattr("llamafactory.hparams.parser.check_version", lambda *args, **kwargs: None)
    changes = {"finetuning_type": "full", "use_badam": True}
    with pytest.raises(ConfigError, match="BAdam never updates embeddings"):
        run_host(train_config(tmp_path / "no_such_model", data, tmp_path / "x", **changes))


def test_train_units_without_units_is_refused(worlds, data, run_host, tmp_path):
    slm = {"stage": "llm", "train_units": "modules"}
    with pytest.raises(ConfigError, match=r"the tokenizer has no units\. Set slm.units"):
        run_host(train_config(worlds["tied"]["text"], data, tmp_path / "x", stage="llm", slm=slm))


def test_a_model_shorter_than_its_tokenizer_is_refused_or_resized(llm, units_base, data, run_host, tmp_path):
    for path in llm.iterdir():
        if path.name in ("config.json", "generation_config.json", "model.safetensors"):
            (tmp_path / path.name).write_bytes(path.read_bytes())
    for path in [*units_base.glob("token*"), *units_base.glob("chat*")]:
        shutil.copyfile(path, tmp_path / path.name)
    with pytest.raises(ConfigError, match=r"its weights have none. Set resize_vocab: true"):
        run_host(train_config(tmp_path, data, tmp_path / "x"))
    run_host(export_config(tmp_path, tmp_path / "base", resize_vocab=True))
    assert equal(weights(tmp_path / "base"), weights(units_base))


@KINDS
@pytest.mark.parametrize(
    ("changes", "head"),
    [
        ({"finetuning_type": "freeze", "freeze_extra_modules": "embed_tokens"}, ",lm_head"),
        ({"adapter": "lora", "create_new_adapter": True}, ""),
        ({"slm": {"stage": "asr", "train_units": "rows"}}, ""),
    ],
    ids=["freeze", "new_adapter", "train_units_alone"],
)
def test_the_way_out_that_a_refusal_names_trains_the_unit_rows(kind, changes, head, worlds, data, run_host, tmp_path):
    world, changes = worlds[kind], dict(changes)
    if "adapter" in changes:
        changes["adapter_name_or_path"] = str(world[changes.pop("adapter")])
    if kind == "untied" and head:
        changes["freeze_extra_modules"] += head
    run_host(train_config(world["base"], data, tmp_path / "asr", **changes))
    if changes.get("finetuning_type") == "freeze":
        after = weights(tmp_path / "asr")
    else:
        after = {name.removeprefix("base_model.model."): tensor for name, tensor in trained(tmp_path / "asr").items()}
        after = {re.sub(r"\.token_adapter\.trainable_tokens_delta", ".weight", name): after[name] for name in after}
    first, before = card.read(world["base"])["units"]["first_id"], weights(world["base"])
    for name in before.keys() & {TABLE, HEAD}:
        rows = after[name] if len(after[name]) == UNITS else after[name][first : first + UNITS]
        changed = int((rows != before[name][first : first + UNITS]).any(1).sum())
        # a row of input embeddings moves if its unit occurs in a batch, a row of the head at every step
        assert changed == UNITS if name == HEAD or kind == "tied" else changed > 0


@pytest.mark.parametrize("targets", ["lm_head", "embed_tokens,lm_head", "norm,lm_head"])
def test_targets_of_a_tied_model_are_reduced_to_its_one_matrix(targets, worlds, data, run_host, tmp_path, slm_log):
    base = worlds["tied"]["base"]
    run_host(train_config(base, data, tmp_path / "asr", additional_target=targets))
    assert "additional_target: this model ties its head to embed_tokens, which trains for both" in slm_log()
    run_host(export_config(base, tmp_path / "model", adapter=tmp_path / "asr", slm={}))
    assert HEAD not in weights(tmp_path / "model")
    assert not torch.equal(weights(tmp_path / "model")[TABLE], weights(base)[TABLE])
    assert json.loads((tmp_path / "model" / "config.json").read_text())["tie_word_embeddings"] is True


def test_an_export_of_two_different_matrices_is_untied(worlds, data, run_host, tmp_path, slm_log):
    """Two matrices are what stock LLaMA-Factory trains if ``additional_target`` names both of a tied model."""
    world = worlds["tied"]
    run_host(export_config(world["base"], tmp_path / "model", adapter=world["both"]))
    assert "the export says tie_word_embeddings: false" in slm_log()
    found, path = weights(tmp_path / "model"), tmp_path / "model" / "config.json"
    assert not torch.equal(found[TABLE], found[HEAD])
    config = json.loads(path.read_text())
    assert config["tie_word_embeddings"] is False
    path.write_text(json.dumps({**config, "tie_word_embeddings": True}))
    with pytest.raises(ConfigError, match=r"holds two different matrices, .* Set tie_word_embeddings: false in its"):
        run_host(train_config(tmp_path / "model", data, tmp_path / "x"))


def test_a_block_that_names_no_units_says_that_their_rows_do_not_train(worlds, data, run_host, tmp_path, slm_log):
    base, slm = worlds["untied"]["base"], {"stage": "asr"}
    run_host(train_config(base, data, tmp_path / "expert", slm=slm))
    run_host(train_config(base, data, tmp_path / "on", slm=slm, adapter_name_or_path=str(tmp_path / "expert")))
    said = "unit rows do not train in model.embed_tokens, lm_head: slm.units is not set, so none were promised."
    assert slm_log().count(said) == 2


def test_a_merge_of_two_different_matrices_is_untied(worlds, run_host, tmp_path):
    base = worlds["tied"]["base"]
    members = []
    for number in (1, 2):
        folder = tmp_path / f"m{number}"
        shutil.copytree(base, folder)
        tensors = weights(folder)
        tensors[HEAD] = tensors[TABLE] + number
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
        members.append({"model": str(folder), "weight": 0.5})
    block = {"method": "linear", "base_model": str(base), "models": members}
    run_host(export_config(base, tmp_path / "merged", slm={"merge": block}))
    assert json.loads((tmp_path / "merged" / "config.json").read_text())["tie_word_embeddings"] is False
