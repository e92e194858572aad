"""Estimates: against the calculation of the recipes, against a real model's weights, and worked by hand."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from prepare import world
from slm_plugin.doctor import plan as plans
from slm_plugin.doctor.calibration import calibration
from slm_plugin.doctor.estimate import PROCESS_BYTES, Training, needs
from slm_plugin.doctor.gpus import KNOWN, find_gpu
from slm_plugin.doctor.plan import Wishes, hours, plan
from slm_plugin.doctor.processor import MATMUL_SHARE, PASSES, Processor, measure
from slm_plugin.doctor.recipe import read_recipe
from slm_plugin.doctor.shapes import Shapes, find_shapes, from_config
from slm_plugin.errors import ConfigError, DataError, WeightsError
from slm_plugin.plugins import Registry
from tiny_models import make_model


@pytest.fixture(scope="module")
def recipes(root: Path) -> Any:
    """``examples/recipes_models.py``, which calculates what the READMEs of the recipes say."""
    spec = importlib.util.spec_from_file_location("recipes_models", root / "examples/recipes_models.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["recipes_models"] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules["recipes_models"]


@pytest.mark.parametrize("name", ["llama3_2_1b", "qwen2_5_1_5b", "llama3_1_8b", "llama3_2_11b_vision"])
def test_a_recipe_needs_what_its_readme_says(
    name: str, recipes: Any, registry: Registry, root: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(root)
    model = recipes.MODELS[name]
    found = recipes.estimate(model)
    recipe = read_recipe(Path(f"examples/{name}/asr.yaml"), registry, model.hub, model.gpus)
    assert recipe.training.shapes.rows == found.n_rows
    assert (recipe.needs.frozen, recipe.needs.trained) == (found.n_frozen, found.n_trained)
    assert recipe.needs.logits == found.logits
    assert recipe.needs.activations == found.activations
    assert recipe.needs.operations == 6 * found.n_multiplied
    zero = 2 if model.deepspeed else 0
    assert recipe.needs.memory == pytest.approx(recipes.memory(found, zero, model.gpus))


def test_a_model_that_is_not_there_yet_is_found_through_the_yaml_that_will_export_it(
    registry: Registry, root: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(root)
    recipe = read_recipe(Path("examples/llama3_2_1b/asr.yaml"), registry)
    assert recipe.training.shapes == find_shapes("meta-llama/Llama-3.2-1B-Instruct", Path("x.yaml"), 10_000)
    with pytest.raises(WeightsError, match=r"nothing is not a folder with a config\.json.*as --model"):
        find_shapes("nothing", Path("examples/tiny/asr.yaml"), 0)


def training_of(shapes: Shapes, **changes: Any) -> Training:
    """One process, LoRA on nothing, fp32; ``changes`` say what is otherwise."""
    plain = {"finetuning": "lora", "rank": 0, "targets": (), "embeddings": "none", "units": 0, "batch": 1}
    plain |= {"accumulation": 1, "cutoff": 8, "processes": 1, "zero": 0, "base_bytes": 4.0, "autocast": False}
    return Training(shapes, **{**plain, "checkpointing": True, "anchored": False, **changes})


@pytest.mark.parametrize("tied", [True, False])
def test_the_weights_of_a_real_model_are_counted_to_the_last_one(tied: bool, tmp_path: Path):
    from transformers import AutoModelForCausalLM

    folder = make_model(tmp_path / "model", tie=tied)
    shapes = find_shapes(str(folder), tmp_path / "x.yaml", 0)
    training = training_of(shapes, finetuning="full")
    model = AutoModelForCausalLM.from_pretrained(folder)
    assert needs(training).trained == sum(parameter.numel() for parameter in model.parameters())


def test_lora_is_counted_as_peft_makes_it(tmp_path: Path):
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    folder = make_model(tmp_path / "model")
    targets = ("q_proj", "k_proj", "o_proj", "up_proj")
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(folder), LoraConfig(r=4, target_modules=list(targets)))
    shapes = find_shapes(str(folder), tmp_path / "x.yaml", 0)
    training = training_of(shapes, rank=4, targets=targets)
    assert needs(training).trained == sum(p.numel() for p in model.parameters() if p.requires_grad)


SHAPES = Shapes(layers=2, hidden=8, inner=16, heads=2, kv_heads=1, tokens=100, rows=128, tied=False)


def test_memory_is_the_sum_that_the_module_writes_down():
    changes = {"rank": 2, "targets": ("q_proj",), "embeddings": "rows", "units": 10, "batch": 3, "cutoff": 5}
    training = training_of(SHAPES, **changes, base_bytes=2.0, autocast=True, checkpointing=False, anchored=True)
    found = needs(training)
    # a layer: q and o 2 x 64, k and v 2 x 8 x 4, MLP 3 x 8 x 16, norms 16 = 592; embeddings 2 x 128 x 8, norm 8
    assert found.frozen == 2 * 592 + 2048 + 8
    # LoRA: 2 layers x rank 2 x (8 + 8); 10 rows at both ends
    assert found.trained == 64 + 160
    assert found.weights == 2 * found.frozen + 18 * found.trained
    assert found.logits == 12 * 15 * 128
    assert found.activations == 15 * 8 * 34 * 2
    assert found.anchor == 4 * found.trained
    assert found.memory == found.weights + found.logits + found.activations + found.anchor


def write(path: Path, **keys: Any) -> Path:
    path.write_text(yaml.safe_dump(keys), encoding="utf-8")
    return path


def test_time_follows_tokens_and_gpus(registry: Registry, tmp_path: Path):
    path = write(
        tmp_path / "a.yaml",
        model_name_or_path="meta-llama/Llama-3.2-1B-Instruct",
        num_train_epochs=2,
        bf16=True,
        slm={"stage": "asr", "units": {"count": 100}},
    )
    recipe = read_recipe(path, registry, tokens=1e9)
    assert recipe.tokens.total == 2 * 1e9
    a100 = find_gpu("A100")
    one, four = hours(recipe, a100), hours(read_recipe(path, registry, tokens=1e9, processes=4), a100)
    # tokens x operations / (312e12 x .35) / 3600
    assert one == pytest.approx(2e9 * recipe.needs.operations / (312e12 * 0.35) / 3600)
    assert four == pytest.approx(one / 4)
    assert hours(read_recipe(path, registry), a100) is None
    limited = write(tmp_path / "b.yaml", **{**yaml.safe_load(path.read_text()), "max_steps": 10})
    # the host's defaults: 8 rows of at most 2,048 tokens
    assert read_recipe(limited, registry).tokens.total == 10 * 8 * 2048


def test_replayed_rows_are_trained_on_as_well(registry: Registry, tmp_path: Path):
    path = write(
        tmp_path / "a.yaml",
        model_name_or_path="meta-llama/Llama-3.2-1B-Instruct",
        num_train_epochs=2,
        slm={"stage": "asr", "mitigations": [{"replay": {"sources": {"x": 0.25, "y": 0.25}}}]},
    )
    # two epochs of 1 + .25 + .25 times the tokens of the stage
    assert read_recipe(path, registry, tokens=1e9).tokens.total == 2 * 1.5e9


def test_tokens_of_prepared_data_are_read_from_its_card(
    registry: Registry, tmp_path: Path, prepared: Callable[..., Any]
):
    numbers = prepared(f"corpus.table.path={world.listed(tmp_path / 'corpus')}").summary()
    path = write(
        tmp_path / "a.yaml",
        model_name_or_path="meta-llama/Llama-3.2-1B-Instruct",
        dataset_dir=str(tmp_path / "out"),
        dataset="set_asr,set_tts",
        num_train_epochs=1,
    )
    assert read_recipe(path, registry).tokens.total == pytest.approx(2 * (numbers["units"] + 1.3 * numbers["words"]))
    # with max_steps the card says how long a row is: 5 steps of 2 rows of one of the two sets
    limited = write(tmp_path / "b.yaml", **{**yaml.safe_load(path.read_text()), "max_steps": 5})
    limited = write(limited, **{**yaml.safe_load(limited.read_text()), "per_device_train_batch_size": 2})
    found = read_recipe(limited, registry).tokens
    mean = (numbers["units"] + 1.3 * numbers["words"]) / numbers["rows"]
    assert found.total == pytest.approx(5 * 2 * mean)
    assert found.source == "of the data card"


def test_no_row_counts_for_more_than_cutoff_len(registry: Registry, tmp_path: Path, prepared: Callable[..., Any]):
    numbers = prepared(f"corpus.table.path={world.listed(tmp_path / 'corpus')}").summary()
    path = write(
        tmp_path / "a.yaml",
        model_name_or_path="meta-llama/Llama-3.2-1B-Instruct",
        dataset_dir=str(tmp_path / "out"),
        dataset="set_asr",
        num_train_epochs=1,
        cutoff_len=4,
    )
    assert read_recipe(path, registry).tokens.total == 4 * numbers["rows"]


def test_rows_of_a_file_are_counted_and_replayed_rows_have_their_own_length(registry: Registry, tmp_path: Path):
    (tmp_path / "data").mkdir()
    rows = {"new": [3] * 30 + [0], "old": [9] * 10}
    for name, units in rows.items():
        line = json.dumps({"discrete_unit": units, "text": "hello world"})
        (tmp_path / f"data/{name}.jsonl").write_text(f"{line}\n" * 300, encoding="utf-8")
    entries = {name: {"file_name": f"{name}.jsonl", "formatting": "slm_asr"} for name in rows}
    (tmp_path / "data/dataset_info.json").write_text(json.dumps(entries), encoding="utf-8")
    slm = {"stage": "asr", "units": {"count": 10}, "mitigations": [{"replay": {"sources": {"old": 0.5}}}]}
    keys = {
        "model_name_or_path": "meta-llama/Llama-3.2-1B-Instruct",
        "dataset_dir": str(tmp_path / "data"),
        "slm": slm,
    }
    found = read_recipe(write(tmp_path / "a.yaml", **keys, dataset="new", num_train_epochs=2), registry).tokens
    one = read_recipe(write(tmp_path / "b.yaml", **keys, dataset="old", num_train_epochs=1), registry).tokens
    assert found.source == "counted on 200 rows"
    # the words around the units are the same in both: w + 31 and w + 10 tokens, 300 rows, half as many replayed
    words = one.total / (300 * 1.5) - 10
    assert 0 <= words < 20
    assert found.total == pytest.approx(2 * 300 * ((words + 31) + 0.5 * (words + 10)))
    steps = read_recipe(write(tmp_path / "c.yaml", **keys, dataset="new", max_steps=3), registry).tokens
    # 24 rows, two thirds of them new
    assert steps.total == pytest.approx(24 * ((words + 31) + 0.5 * (words + 10)) / 1.5)


def test_the_error_that_the_plan_states_is_that_of_the_shipped_runs():
    known = calibration()
    assert len(known.runs) >= 12
    assert {run.processor.dtype for run in known.runs} == {"float32", "bfloat16"}
    assert {run.training.finetuning for run in known.runs} == {"lora", "full"}
    for run in known.runs:
        assert needs(run.training).memory == pytest.approx(run.memory, rel=0.1), run.name
        tokens = run.training.batch * run.training.cutoff
        assert run.processor.seconds(run.training, tokens) == pytest.approx(run.step_seconds, rel=0.2), run.name
    assert known.memory_error <= 0.1
    assert known.time_error <= 0.2


def test_memory_on_a_cpu_is_the_sum_that_the_module_writes_down():
    training = training_of(SHAPES, batch=3, cutoff=5, finetuning="full", checkpointing=False, cpu=True)
    found = needs(training)
    assert found.process == PROCESS_BYTES
    # 15 tokens, 128 rows
    assert found.logits == 20 * 15 * 128
    # a layer keeps 14 x 8 + 2 x 4 + 4 x 16 = 184 values of 4 bytes of a token
    assert found.activations == pytest.approx(1.38 * 15 * 2 * 184 * 4)
    # a layer has 592 weights: 6 operations each, for the head too
    assert found.operations == 6 * 2 * 592 + 6 * 128 * 8
    assert found.memory == found.process + found.weights + found.logits + found.activations
    again = needs(training_of(SHAPES, batch=3, cutoff=5, cpu=True))
    # 2 layers of 8 values, and one whole layer
    assert again.activations == pytest.approx(1.38 * 15 * (2 * 8 + 184) * 4)
    # frozen weights need no gradient, and the layers are calculated twice
    assert again.operations == 6 * 2 * 592 + 4 * 128 * 8


def test_a_plan_on_a_cpu_has_a_time_and_the_error_of_its_estimates(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(plans, "_processor", lambda bf16: Processor("float32", 100e9, 1e-9, 2))
    keys = {"model_name_or_path": str(make_model(tmp_path / "model")), "slm": {"stage": "asr", "units": {"count": 10}}}
    path = write(tmp_path / "a.yaml", **keys, max_steps=10, per_device_train_batch_size=2, cutoff_len=64)
    said = "\n".join(plan(path, registry, Wishes(cpu=True)))
    known = calibration()
    assert (
        f"on {len(known.runs)} measured runs ({known.date}) such estimates were within {known.memory_error:.0%}"
        in said
    )
    assert "GB of this machine: process 1.1, weights" in said
    assert "for 1,280 tokens (at most, for rows of cutoff_len), at 100 G operations a second in float32" in said
    training = read_recipe(path, registry, cpu=True).training
    expected = 1_280 * (
        MATMUL_SHARE["float32"] * needs(training).operations / 100e9
        + PASSES * 1e-9 * training.shapes.layers * training.shapes.hidden
    )
    assert Processor("float32", 100e9, 1e-9, 2).seconds(training, 1_280) == pytest.approx(expected)


def test_what_needs_a_gpu_is_not_planned_for_a_cpu(registry: Registry, tmp_path: Path):
    keys = {"model_name_or_path": str(make_model(tmp_path / "model"))}
    assert read_recipe(write(tmp_path / "a.yaml", **keys), registry, cpu=True).training.cpu
    assert not read_recipe(write(tmp_path / "b.yaml", **keys, quantization_bit=4), registry, cpu=True).training.cpu
    assert not read_recipe(write(tmp_path / "a.yaml", **keys), registry, processes=2, cpu=True).training.cpu


def test_the_speed_of_this_cpu_is_measured():
    found = measure(bf16=False)
    assert found.dtype == "float32"
    assert 1e8 < found.rate < 1e14
    assert 1e-12 < found.value_seconds < 1e-6


def test_a_plan_says_what_is_too_much_and_what_would_help(registry: Registry, tmp_path: Path):
    keys = {"model_name_or_path": "meta-llama/Llama-3.1-8B-Instruct", "bf16": True, "lora_rank": 64}
    slm = {"stage": "asr", "units": {"count": 10_000}}
    path = write(tmp_path / "a.yaml", **keys, slm=slm, per_device_train_batch_size=1)
    said = "\n".join(plan(path, registry, Wishes(gpu=find_gpu("RTX 4090"))))
    assert "of 24 GB of RTX 4090" in said
    assert "too much:  slm.train_units: rows or deepspeed with ZeRO-2 on several GPUs" in said
    assert "time       not known: give the tokens of one epoch as --tokens" in said


def test_a_pipeline_is_the_sum_of_its_steps(registry: Registry, root: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(root)
    lines = list(plan(Path("examples/llama3_2_1b/pipeline.yaml"), registry, Wishes(gpu=find_gpu("A100"), tokens=1e6)))
    (total,) = (line for line in lines if line.startswith("pipeline.yaml: memory"))
    parts = [float(line.split("disk")[1].split("GB")[0]) for line in lines if line.startswith("  disk")]
    exports = [float(line.split(": ")[1].split(" GB")[0]) for line in lines if line.endswith("GB on disk")]
    assert float(total.split("disk ")[1].split(" GB")[0]) == pytest.approx(sum(parts) + sum(exports), abs=0.5)
    assert "hours of training" in total


def test_a_corpus_is_measured_on_some_of_its_items(registry: Registry, tmp_path: Path):
    table = world.listed(tmp_path / "corpus", 16)
    keys = {"name": "x", "output": str(tmp_path / "out"), "codec": "tiny", "corpus": {"table": {"path": str(table)}}}
    said = list(plan(write(tmp_path / "a.yaml", **keys), registry, Wishes()))
    assert "16 items, measured on 12 of them here; 12 can be used" in said[0]
    assert len(said) == 4
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"a": 1}, "is no train, export, pipeline or prepare file"),
        ({"model_name_or_path": "x", "finetuning_type": "oft"}, "'oft' cannot be estimated"),
        ({"model_name_or_path": "x", "lora_target": "q_prog"}, "Did you mean 'q_proj'"),
        ({"model_name_or_path": "x", "deepspeed": "none.json"}, "names no ZeRO stage"),
    ],
)
def test_what_cannot_be_estimated_is_said(keys: dict[str, Any], message: str, registry: Registry, tmp_path: Path):
    folder = make_model(tmp_path / "model")
    if "model_name_or_path" in keys:
        keys = {**keys, "model_name_or_path": str(folder)}
    with pytest.raises(ConfigError, match=message):
        list(plan(write(tmp_path / "a.yaml", **keys), registry, Wishes()))


def test_a_config_without_a_size_and_a_gpu_that_nobody_knows_are_refused():
    with pytest.raises(WeightsError, match=r"config\.json lacks 'num_attention_heads'"):
        from_config({"vocab_size": 3})
    with pytest.raises(DataError, match=r"no GPU is called 'L40X'.*Did you mean 'L40S'"):
        find_gpu("L40X")


@pytest.mark.parametrize(
    ("name", "expected"),
    [("NVIDIA A100-SXM4-80GB", "A100"), ("NVIDIA A100-PCIE-40GB", "A100-40GB"),
     ("NVIDIA GeForce RTX 4090", "RTX 4090"),
     ("NVIDIA L40S", "L40S"), ("NVIDIA RTX A6000", "A6000"), ("h100", "H100"), ("L4", "L4")],
)  # fmt: skip
def test_a_gpu_is_known_by_what_its_driver_calls_it(name: str, expected: str):
    assert find_gpu(name).name == expected
    assert len({gpu.name for gpu in KNOWN}) == len(KNOWN)


def test_the_card_that_is_read_is_the_one_that_is_written(prepared: Callable[..., Any], tmp_path: Path):
    prepared(f"corpus.table.path={world.listed(tmp_path / 'corpus', 2)}")
    assert {"units", "words"} <= set(json.loads((tmp_path / "out/set/card.json").read_text())["numbers"])
