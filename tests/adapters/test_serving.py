"""``slm export-check``: what vLLM takes, why not, and a form that it takes."""

from __future__ import annotations

import shutil
import warnings

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM
from typer.testing import CliRunner

from adapters.worlds import KINDS, TIED_KINDS, edit_config, make_adapter, make_base
from slm_plugin.adapters.serving import refusals
from slm_plugin.cli import make_app
from slm_plugin.errors import WeightsError
from tiny_models import make_tokenizer

ALL_KINDS = {**KINDS, **TIED_KINDS}


def call(*words):
    return CliRunner().invoke(make_app(), ["export-check", *map(str, words)])


@pytest.fixture(scope="module")
def bases(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bases")
    return {tie: make_base(folder / f"tied_{tie}", tie=tie) for tie in (False, True)}


@pytest.fixture
def base(bases):
    return bases[False]


@pytest.mark.parametrize("kind", ["plain", "rslora", "embedding_lora"])
def test_plain_lora_is_taken(kind, base, tmp_path):
    result = call(make_adapter(base, tmp_path / "adapter", **KINDS[kind]))
    assert result.exit_code == 0
    assert result.output == f"vLLM takes {tmp_path / 'adapter'} as it is.\n"


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (KINDS["modules_to_save"], "in full (modules_to_save): lm_head.weight, model.embed_tokens.weight"),
        (KINDS["rows"], "rows are trained in full (trainable_token_indices): lm_head.weight, model.embed_tokens"),
        (KINDS["dora"], "it is DoRA (use_dora)"),
        (KINDS["patterns"], "modules have scales of their own (alpha_pattern, rank_pattern)"),
        (KINDS["patterns"], "a module has rank 8, above r (4), which is all that vLLM checks"),
        ({"r": 513}, "rank 513 is above 512, the largest --max-lora-rank"),
        ({"bias": "all"}, "biases are trained (bias: all)"),
    ],
)
def test_every_reason_is_told(options, reason, base, tmp_path):
    result = call(make_adapter(base, tmp_path / "adapter", **options))
    assert result.exit_code == 1
    assert reason in result.output
    assert len(result.output.splitlines()) == result.output.count("vLLM refuses")


def test_several_reasons_are_told_at_once(base, tmp_path):
    adapter = make_adapter(base, tmp_path / "adapter", **KINDS["dora"], **KINDS["modules_to_save"])
    assert len(refusals(adapter, base)) == 2


def test_what_depends_on_the_base_is_told(base, tmp_path):
    adapter = make_adapter(base, tmp_path / "adapter")
    other = make_base(tmp_path / "other", seed=3)
    assert "was trained on" in refusals(adapter, other)[0]
    short = make_base(tmp_path / "short", rows=50)
    # the card's units end at 48 + 8
    assert "its units end at token 56, the base has 50: give the base with units" in refusals(adapter, short)
    # 64 rows hold the ids of the units, but the tokenizer has no units: the rows are padding
    padded = make_base(tmp_path / "padded")
    make_tokenizer().save_pretrained(padded)
    assert "the base has no units at tokens 48..55: give the base with units" in refusals(adapter, padded)
    (adapter / "slm.json").unlink()
    deep = make_base(tmp_path / "deep")
    shutil.rmtree(deep)
    with pytest.raises(WeightsError):
        refusals(adapter, deep)


def test_an_update_of_embeddings_is_taken_only_where_the_architecture_has_a_place(base, tmp_path):
    adapter = make_adapter(base, tmp_path / "adapter", **KINDS["embedding_lora"])
    other = tmp_path / "other"
    shutil.copytree(base, other)
    (other / "config.json").write_text((base / "config.json").read_text().replace("LlamaFor", "GemmaFor"))
    (adapter / "slm.json").unlink()
    assert refusals(adapter, other) == ["vLLM takes no update of model.embed_tokens.weight for this architecture"]


def test_a_base_that_is_not_here_is_said(base, tmp_path):
    adapter = make_adapter(base, tmp_path / "adapter")
    edit_config(adapter, base_model_name_or_path="somebody/somewhere")
    assert "give --base to check names, shapes and vocabulary" in call(adapter).output
    result = call(adapter, "--convert", tmp_path / "out")
    assert isinstance(result.exception, WeightsError)
    assert "give it by --base" in str(result.exception)


def logits(base, adapter):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), adapter)
    with torch.no_grad():
        return model(torch.arange(40)[None]).logits


@pytest.mark.parametrize("kind", ALL_KINDS)
def test_a_converted_adapter_is_taken_and_gives_the_same_logits(kind, bases, tmp_path):
    base = bases[kind in TIED_KINDS]
    adapter = make_adapter(base, tmp_path / "adapter", **ALL_KINDS[kind])
    result = call(adapter, "--convert", tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert refusals(tmp_path / "out" / "adapter", tmp_path / "out" / "base") == []
    found = logits(tmp_path / "out" / "base", tmp_path / "out" / "adapter")
    torch.testing.assert_close(found, logits(base, adapter), rtol=1e-4, atol=1e-4)


def test_conversion_takes_further_rows_into_the_base(base, tmp_path):
    long = make_base(tmp_path / "long", rows=72)
    adapter = make_adapter(long, tmp_path / "adapter", **KINDS["modules_to_save"])
    (adapter / "slm.json").unlink()
    assert "it brings 8 rows that the vocabulary of its base (64) lacks" in refusals(adapter, base)
    assert call(adapter, "--base", base, "--convert", tmp_path / "out").exit_code == 0
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out" / "base")
    assert model.config.vocab_size == model.lm_head.weight.shape[0] == 72


def test_two_experts_with_the_same_rows_share_their_base(base, tmp_path):
    first = make_adapter(base, tmp_path / "first", **KINDS["modules_to_save"])
    second = make_adapter(base, tmp_path / "second", seed=2, **KINDS["modules_to_save"])
    from slm_plugin.adapters.lora import LoraAdapter

    saved = load_file(first / "adapter_model.safetensors")
    rows = {key: saved[key] for key, (kind, _) in LoraAdapter(first).kinds().items() if kind == "replaced"}
    from safetensors.torch import save_file

    save_file(load_file(second / "adapter_model.safetensors") | rows, second / "adapter_model.safetensors")
    for adapter in (first, second):
        assert call(adapter, "--convert", tmp_path / f"{adapter.name}_out").exit_code == 0
    one, other = (load_file(tmp_path / f"{name}_out/base/model.safetensors") for name in ("first", "second"))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_nothing_is_overwritten_and_nothing_half_written(base, tmp_path):
    adapter = make_adapter(base, tmp_path / "adapter", **KINDS["modules_to_save"])
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    result = call(adapter, "--convert", tmp_path / "out")
    assert "is not an empty folder" in str(result.exception)
    saved = load_file(adapter / "adapter_model.safetensors")
    saved["base_model.model.model.layers.1.mlp.down_proj.lora_B.weight"] *= float("nan")
    from safetensors.torch import save_file

    save_file(saved, adapter / "adapter_model.safetensors")
    result = call(adapter, "--convert", tmp_path / "new")
    assert "not finite" in str(result.exception)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["adapter", "out"]
