"""Whole merges without the host: what is written, rows of the vocabulary, and what is said of bad models."""

from __future__ import annotations

import errno
import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from merge.conftest import members
from slm_plugin import card
from slm_plugin.errors import WeightsError
from slm_plugin.vocabulary import UnitVocabulary
from tiny_models import make_model

EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"
FILE = "model.safetensors"


def weights(folder):
    return load_file(folder / FILE)


def change(folder, target, edit):
    """Copy a model with its tensors edited in place."""
    shutil.copytree(folder, target)
    tensors = weights(target)
    edit(tensors)
    save_file(tensors, target / FILE, metadata={"format": "pt"})
    return target


def linear(folders, shares=(0.5, 0.3, 0.2), **changes):
    return {"method": "linear", "models": members(folders, shares), **changes}


def padded(folder, target, n_rows, seed):
    """Copy a model with ``n_rows`` rows of noise behind its vocabulary."""

    def edit(tensors):
        draw = torch.Generator().manual_seed(seed)
        for name in {EMBEDDING, HEAD} & tensors.keys():
            noise = torch.randn(n_rows, tensors[name].shape[1], generator=draw)
            tensors[name] = torch.cat([tensors[name], noise])

    change(folder, target, edit)
    config = json.loads((target / "config.json").read_text())
    config["vocab_size"] += n_rows
    (target / "config.json").write_text(json.dumps(config))
    return target


@pytest.mark.parametrize("engine", ["own", "mergekit"])
def test_a_merged_model_loads_with_the_files_of_a_model(engine, models, run_merge):
    block = {"method": "ties", "base_model": str(models[0]), "models": members(models[1:], density=0.9)}
    folder = run_merge({**block, "engine": engine, "dtype": "bfloat16"})
    model = AutoModelForCausalLM.from_pretrained(folder)
    assert model.dtype == torch.bfloat16
    assert len(AutoTokenizer.from_pretrained(folder)) == model.config.vocab_size
    assert {path.name for path in folder.iterdir()} >= {"config.json", "generation_config.json", "tokenizer.json"}
    found = card.read(folder)
    assert found["merge"]["engine"] == engine
    assert found["merge"]["options"]["normalize"] is True
    assert found["merge"]["members"][2]["fingerprint"] == card.fingerprint(models[3])
    assert found["units"] is None


def test_both_engines_agree(models, run_merge):
    for method in ("linear", "ties", "task_arithmetic"):
        extra = {"density": 0.7} if method == "ties" else {}
        block = {"method": method, "base_model": str(models[0]), "models": members(models[1:], **extra)}
        ours, theirs = (run_merge({**block, "engine": e}, f"{method}-{e}") for e in ("own", "mergekit"))
        for name, tensor in weights(ours).items():
            torch.testing.assert_close(tensor, weights(theirs)[name], rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("slerp", {"parameters": {"t": [{"filter": "self_attn", "value": [0, 0.5]}, {"value": 0.3}]}}),
        ("nuslerp", {"n": 2, "member": {"weight": 0.5}}),
        ("della", {"n": 3, "member": {"weight": 0.5, "density": 0.6}}),
        ("della_linear", {"n": 2, "member": {"weight": 0.5, "density": 0.6, "epsilon": 0.1}}),
        ("breadcrumbs", {"n": 2, "member": {"weight": 0.5, "gamma": 0.02}}),
        ("breadcrumbs_ties", {"n": 2, "member": {"weight": 0.5, "density": 0.6}}),
        ("model_stock", {"n": 3}),
        ("karcher", {"n": 3, "base": False}),
        ("sce", {"n": 2, "parameters": {"select_topk": 0.5}}),
        ("multislerp", {"n": 3, "member": {"weight": 1}, "base": False}),
        ("nearswap", {"parameters": {"t": 0.01}}),
        ("arcee_fusion", {}),
        ("ram", {"n": 2}),
        ("ramplus_tl", {"n": 2}),
        ("passthrough", {"base": False}),
    ],
)
def test_every_method_of_mergekit_runs_by_its_name(method, options, models, run_merge):
    entries = [{"model": str(m), **options.get("member", {})} for m in models[1 : 1 + options.get("n", 1)]]
    block = {"method": method, "models": entries, "parameters": options.get("parameters", {})}
    if options.get("base", True):
        block["base_model"] = str(models[0])
    merged = weights(run_merge(block))
    assert merged.keys() == weights(models[0]).keys()
    assert all(torch.isfinite(tensor).all() for tensor in merged.values())


def test_a_draw_is_repeated_by_its_seed_and_changed_by_another(models, run_merge):
    block = {"method": "dare_ties", "base_model": str(models[0]), "models": members(models[1:], density=0.5)}
    one, same, other = (
        weights(run_merge({**block, "seed": seed}, name)) for seed, name in ((1, "a"), (1, "b"), (2, "c"))
    )
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert any(not torch.equal(one[name], other[name]) for name in one)


def test_many_shards_are_read_and_written_and_one_that_is_missing_is_named(models, run_merge, tmp_path):
    whole = weights(run_merge(linear(models[1:])))
    parts = [tmp_path / f"part{number}" for number in range(3)]
    for source, target in zip(models[1:], parts, strict=True):
        model = AutoModelForCausalLM.from_pretrained(source)
        model.save_pretrained(target, max_shard_size="60KB")
    folder = run_merge(linear(parts), "sharded", max_shard_bytes=60_000)
    assert len(list(folder.glob("model-*.safetensors"))) > 3
    state = AutoModelForCausalLM.from_pretrained(folder).state_dict()
    assert all(torch.equal(state[name], tensor) for name, tensor in whole.items())
    shard = sorted(parts[1].glob("model-*.safetensors"))[1]
    shard.unlink()
    with pytest.raises(WeightsError, match=rf"part1 lacks 1 shard\(s\) of its index: {shard.name}"):
        run_merge(linear(parts), "nothing")
    assert not (tmp_path / "nothing").exists()


# ---- vocabularies of different sizes


@pytest.fixture(scope="module", params=[False, True], ids=["untied", "tied"])
def mixed(request, tmp_path_factory):
    """A text model padded with noise, and models with 20 and 50 units, the last one padded too."""
    folder, tie = tmp_path_factory.mktemp("mixed"), request.param
    text = padded(make_model(folder / "plain", tie=tie, seed=1), folder / "text", 64, seed=1)
    few = make_model(folder / "few", tie=tie, units=20, seed=2)
    many = make_model(folder / "many", tie=tie, units=50, seed=3)
    full = padded(make_model(folder / "short", tie=tie, units=50, seed=4), folder / "full", 30, seed=2)
    return {"text": text, "few": few, "many": many, "full": full, "n": len(AutoTokenizer.from_pretrained(text))}


@pytest.mark.parametrize("engine", ["own", "mergekit"])
def test_later_rows_come_row_by_row_from_the_members_that_have_them(engine, mixed, run_merge):
    names = ("text", "few", "full", "many")
    block = linear([mixed[name] for name in names], (0.4, 0.3, 0.2, 0.1), engine=engine)
    folder = run_merge(block)
    merged, parts, n = weights(folder), [weights(mixed[name]) for name in names], mixed["n"]
    for name in {EMBEDDING, HEAD} & merged.keys():
        text, few, full, many = (part[name] for part in parts)
        # 80 rows beyond the text: 20 units of three members, 30 more of two, 30 of padding
        assert len(merged[name]) == n + 80
        common = 0.4 * text[:n] + 0.3 * few[:n] + 0.2 * full[:n] + 0.1 * many[:n]
        torch.testing.assert_close(merged[name][:n], common, rtol=1e-5, atol=1e-7)
        first, second = slice(n, n + 20), slice(n + 20, n + 50)
        three = (0.3 * few[first] + 0.2 * full[first] + 0.1 * many[first]) / 0.6
        torch.testing.assert_close(merged[name][first], three, rtol=1e-5, atol=1e-7)
        two = (0.2 * full[second] + 0.1 * many[second]) / 0.3
        torch.testing.assert_close(merged[name][second], two, rtol=1e-5, atol=1e-7)
        assert torch.equal(merged[name][n + 50 :], full[n + 50 :])
    assert len(AutoTokenizer.from_pretrained(folder)) == n + 50
    assert json.loads((folder / "config.json").read_text())["vocab_size"] == n + 80
    assert card.read(folder)["units"] == {"count": 50, "first_id": n, "seed": None, "init": None}
    AutoModelForCausalLM.from_pretrained(folder)


@pytest.mark.parametrize("engine", ["own", "mergekit"])
def test_a_base_without_units_leaves_unit_rows_to_the_members(engine, mixed, run_merge):
    """TIES on the text model as base, as the reference's recipe has it."""
    models = members([mixed["full"], mixed["many"]], (0.9, 0.1), density=0.8)
    block = {"method": "ties", "base_model": str(mixed["text"]), "models": models, "engine": engine}
    merged, n = weights(run_merge(block)), mixed["n"]
    full, many = weights(mixed["full"]), weights(mixed["many"])
    for name in {EMBEDDING, HEAD} & merged.keys():
        expected = 0.9 * full[name][n : n + 50] + 0.1 * many[name][n : n + 50]
        torch.testing.assert_close(merged[name][n : n + 50], expected, rtol=1e-5, atol=1e-7)
        assert torch.equal(merged[name][n + 50 :], full[name][n + 50 :])


def test_the_density_counts_the_common_rows_only(mixed, run_merge):
    """Rows that only some have must not decide which common elements are kept."""
    with_noise = {
        "method": "ties",
        "base_model": str(mixed["text"]),
        "models": members([mixed["many"]], (1,), density=0.5),
    }
    merged, n = weights(run_merge(with_noise)), mixed["n"]
    base = weights(mixed["text"])
    changed = (merged[EMBEDDING][:n] != base[EMBEDDING][:n]).sum()
    assert changed == int(0.5 * n * base[EMBEDDING].shape[1])


def test_rows_that_only_the_base_has_are_the_base_s(mixed, run_merge):
    block = {"method": "task_arithmetic", "base_model": str(mixed["many"]), "models": members([mixed["few"]], (1,))}
    merged, n = weights(run_merge(block)), mixed["n"]
    assert torch.equal(merged[EMBEDDING][n + 20 :], weights(mixed["many"])[EMBEDDING][n + 20 :])
    torch.testing.assert_close(merged[EMBEDDING][: n + 20], weights(mixed["few"])[EMBEDDING], rtol=0, atol=1e-6)


def test_equal_vocabularies_are_merged_as_they_are_padding_too(mixed, run_merge):
    merged = weights(run_merge(linear([mixed["full"], mixed["full"].parent / "full"][:1], (1,))))
    assert all(torch.equal(merged[name], tensor) for name, tensor in weights(mixed["full"]).items())


def test_tokenizers_that_disagree_are_refused_with_the_first_differing_token(run_merge, tmp_path):
    one, other = (make_model(tmp_path / name, units=5) for name in ("one", "other"))
    text = (other / "tokenizer.json").read_text()
    (other / "tokenizer.json").write_text(text.replace("<|3|>", "<|three|>"))
    number = AutoTokenizer.from_pretrained(one).convert_tokens_to_ids("<|3|>")
    with pytest.raises(WeightsError, match=rf"disagree: id {number} is '<\|3\|>' in the one and '<\|three\|>' in the"):
        run_merge(linear([one, other]))


def test_a_model_with_units_keeps_its_arithmetic_of_units(mixed, run_merge):
    folder = run_merge(linear([mixed["text"], mixed["many"]]))
    assert UnitVocabulary.find(AutoTokenizer.from_pretrained(folder)) == UnitVocabulary(mixed["n"], 50)


# ---- models that cannot be merged


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("engine", ["own", "mergekit"])
def test_values_that_are_not_finite_name_file_and_tensor_and_leave_nothing(value, engine, models, run_merge, tmp_path):
    name = "model.layers.1.mlp.up_proj.weight"
    bad = change(models[2], tmp_path / "bad", lambda tensors: tensors[name][3].fill_(value))
    with pytest.raises(WeightsError) as caught:
        run_merge(linear([models[1], bad], engine=engine))
    assert str(caught.value) == f"{bad / FILE}: the tensor {name!r} holds 64 value(s) that are not finite."
    assert [path.name for path in tmp_path.iterdir()] == ["bad"]


@pytest.mark.parametrize("engine", ["own", "mergekit"])
def test_a_result_that_its_type_cannot_hold_is_refused_and_leaves_nothing(engine, models, run_merge, tmp_path):
    # 70,000 is above the largest float16, 65,504
    large = change(models[1], tmp_path / "large", lambda tensors: tensors["model.norm.weight"].fill_(7e4))
    with pytest.raises(
        WeightsError, match=r"64 value\(s\) of the tensor 'model.norm.weight' are not finite in float16"
    ):
        run_merge({**linear([large], (1,)), "engine": engine, "dtype": "float16"})
    assert [path.name for path in tmp_path.iterdir()] == ["large"]


def test_large_finite_values_are_no_reason_to_stop(models, run_merge, tmp_path):
    """Their sum overflows, they do not."""
    large = change(models[1], tmp_path / "large", lambda tensors: tensors["model.norm.weight"].fill_(3e38))
    merged = weights(run_merge(linear([large], (1,))))
    assert torch.equal(merged["model.norm.weight"], torch.full((64,), 3e38))


def test_every_model_that_cannot_be_used_is_listed_before_any_work(models, run_merge, tmp_path):
    wide = make_model(tmp_path / "wide", hidden=128)
    deep = make_model(tmp_path / "deep", layers=3)
    (tmp_path / "empty").mkdir()
    torn = change(models[1], tmp_path / "torn", lambda tensors: None)
    (torn / FILE).write_bytes((torn / FILE).read_bytes()[:1000])
    folders = [models[1], tmp_path / "nowhere", tmp_path / "empty", torn, wide, deep]
    with pytest.raises(WeightsError) as caught:
        run_merge(linear(folders, (1,) * 6))
    text = str(caught.value)
    for part in (
        "5 problems:",
        f"{tmp_path / 'nowhere'} is not a folder",
        f"{tmp_path / 'empty'} holds neither model.safetensors nor",
        f"{torn / FILE} is damaged",
        f"{wide} are of different architectures: hidden_size is 64 and 128",
        f"{deep} are of different architectures: num_hidden_layers is 2 and 3",
    ):
        assert part in text, part
    assert not (tmp_path / "merged").exists()


def test_tied_and_untied_models_are_of_different_architectures(models, run_merge, tmp_path):
    tied = make_model(tmp_path / "tied", tie=True)
    with pytest.raises(WeightsError, match="tie_word_embeddings is False and True"):
        run_merge(linear([models[1], tied]))


def test_an_adapter_without_its_base_asks_for_it(models, run_merge, tmp_path):
    from peft import LoraConfig, get_peft_model

    model = get_peft_model(AutoModelForCausalLM.from_pretrained(models[0]), LoraConfig(target_modules=["q_proj"]))
    model.save_pretrained(tmp_path / "adapter")
    config = tmp_path / "adapter" / "adapter_config.json"
    config.write_text(config.read_text().replace(str(models[0]), "someone/elsewhere"))
    with pytest.raises(WeightsError, match="trained on 'someone/elsewhere', no folder here: set base_model"):
        run_merge(linear([tmp_path / "adapter"]))
    merged = weights(run_merge(linear([tmp_path / "adapter"], base_model=str(models[0]))))
    # an untrained adapter changes nothing
    assert all(torch.equal(merged[name], tensor) for name, tensor in weights(models[0]).items())


# ---- adapters


def train_randomly(folder, base, seed, **options):
    """Write an adapter whose trained tensors are random."""
    from peft import LoraConfig, get_peft_model

    model = get_peft_model(AutoModelForCausalLM.from_pretrained(base), LoraConfig(r=4, lora_alpha=6, **options))
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn(parameter.shape, generator=draw) * 0.05)
    model.save_pretrained(folder, save_embedding_layers=False)
    merged = model.merge_and_unload()
    return {name: tensor.clone() for name, tensor in merged.state_dict().items()}


@pytest.mark.parametrize("method", ["linear", "task_arithmetic"])
def test_adapters_of_all_kinds_and_full_models_are_summed_together(method, models, run_merge, tmp_path):
    kinds = {
        "plain": {"target_modules": ["q_proj", "down_proj"]},
        "other": {"target_modules": ["q_proj", "k_proj"], "use_rslora": True},
        "decomposed": {"target_modules": ["q_proj"], "use_dora": True},
        "full": {"target_modules": ["v_proj"], "modules_to_save": ["embed_tokens"]},
        "rows": {"target_modules": ["v_proj"], "trainable_token_indices": {"embed_tokens": [3, 7]}},
    }
    parts = [
        train_randomly(tmp_path / name, models[0], seed, **options)
        for seed, (name, options) in enumerate(kinds.items())
    ]
    shares = (0.3, 0.2, 0.2, 0.1, 0.1, 0.4)
    folders = [*(tmp_path / name for name in kinds), models[1]]
    block = {"method": method, "base_model": str(models[0]), "models": members(folders, shares)}
    merged, base = weights(run_merge(block)), weights(models[0])
    parts.append(weights(models[1]))
    for name, tensor in merged.items():
        expected = sum(share * part[name] for share, part in zip(shares, parts, strict=True)) / 1.3
        if method == "task_arithmetic":
            expected = base[name] + sum(w * (part[name] - base[name]) for w, part in zip(shares, parts, strict=True))
        torch.testing.assert_close(tensor, expected, rtol=1e-4, atol=1e-6, msg=name)


@pytest.mark.parametrize("engine", ["own", "mergekit"])
def test_adapters_merge_by_ties_in_both_engines(engine, models, run_merge, tmp_path):
    for seed, name in enumerate(("one", "two")):
        parts = train_randomly(tmp_path / name, models[0], seed, target_modules=["q_proj", "up_proj"])
        assert parts
    block = {"method": "ties", "base_model": str(models[0]), "engine": engine}
    block["models"] = members([tmp_path / "one", tmp_path / "two"], (0.7, 0.3), density=0.6)
    merged, base = weights(run_merge(block)), weights(models[0])
    changed = {name for name in base if not torch.equal(base[name], merged[name])}
    assert {name.split(".")[-2] for name in changed} == {"q_proj", "up_proj"}
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["merged", "one", "two"]


def test_a_disk_that_fills_up_leaves_an_earlier_model_as_it_was(models, run_merge, tmp_path, monkeypatch):
    folder = run_merge(linear(models[1:]))
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    written = []

    def write_all(file, tensor):
        written.append(tensor)
        if len(written) > 5:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("slm_plugin.weights.writer._write_all", write_all)
    with pytest.raises(WeightsError, match="No space left on device"):
        run_merge(linear(models[:2]))
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["merged"]
