"""The package in examples/plugin, built, installed and trained with."""

from __future__ import annotations

import importlib
import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet
import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

import tiny_models
from slm_plugin.config import parse_block
from slm_plugin.hookspecs import RegisterHooks, StageHooks
from slm_plugin.plugins import Registry
from slm_plugin.prepare.options import load
from slm_plugin.prepare.progress import Progress
from slm_plugin.prepare.run import prepare
from slm_plugin.speech.codecs import load_codec

WORDS = [
    "the",
    "cat",
    "dog",
    "sat",
    "mat",
    "please",
    "repeat",
    "following",
    "words",
    "say",
    "echo",
    "what",
    "your",
    "name",
    "hello",
    "world",
    "this",
    "speech",
    "text",
] * 2
N_CHATS = 30


@pytest.fixture(scope="module")
def installed(root: Path, uv: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that holds the example as ``pip install`` would put it down, metadata included."""
    folder = tmp_path_factory.mktemp("example")
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder / "dist")]
    subprocess.run([*build, str(root / "examples/plugin")], check=True, capture_output=True)
    (wheel,) = (folder / "dist").glob("*.whl")
    target = folder / "site"
    install = [uv, "pip", "install", "--quiet", "--no-deps", "--python", sys.executable, "--target", str(target)]
    subprocess.run([*install, str(wheel)], check=True, capture_output=True)
    return target


@pytest.fixture(scope="module")
def example(installed: Path) -> Iterator[Any]:
    """The installed module, on this process's path while this file's tests run."""
    sys.path.insert(0, str(installed))
    yield importlib.import_module("slm_plugin_example")
    sys.path.remove(str(installed))
    sys.modules.pop("slm_plugin_example", None)


@pytest.fixture(scope="module")
def with_example(example: Any) -> Registry:
    return Registry.load(entry_points=True)


@pytest.fixture(scope="module")
def readme_block(root: Path) -> dict[str, Any]:
    """The ``slm:`` block that the example's README shows."""
    text = (root / "examples/plugin/README.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    return yaml.safe_load(block)["slm"]


@pytest.fixture(scope="module")
def trained(installed: Path, readme_block: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the host trained and exported with the README's block."""
    folder = tmp_path_factory.mktemp("run")
    tiny_models.make_model(folder / "model")
    write_rows(folder / "data/words.jsonl", [{"word": word} for word in WORDS])
    write_rows(folder / "data/chats.jsonl", [{"input": f"hello {i}", "output": "good day"} for i in range(N_CHATS)])
    entries = {
        "words": {"file_name": "words.jsonl", "formatting": "slm_spell"},
        "llm": {"file_name": "chats.jsonl", "formatting": "slm_llm"},
    }
    (folder / "data/dataset_info.json").write_text(json.dumps(entries), encoding="utf-8")
    shared = {"model_name_or_path": "model", "template": "llama3", "finetuning_type": "lora", "slm": readme_block}
    train = {
        "stage": "sft",
        "do_train": True,
        "lora_rank": 4,
        "lora_target": "q_proj,v_proj",
        "dataset": "words",
        "dataset_dir": "data",
        "cutoff_len": 64,
        "output_dir": "adapter",
        "per_device_train_batch_size": 4,
        "gradient_accumulation_steps": 2,
        "max_steps": 3,
        "learning_rate": 1.0e-2,
        "logging_steps": 1,
        "report_to": "none",
        "use_cpu": True,
    }
    export = {"adapter_name_or_path": "adapter", "export_dir": "exported", "export_device": "cpu"}
    for name, own in (("train", train), ("export", {**export, "infer_dtype": "float32"})):
        (folder / f"{name}.yaml").write_text(yaml.safe_dump({**shared, **own}), encoding="utf-8")
    paths = os.pathsep.join([str(installed), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    command = [sys.executable, str(Path(__file__).with_name("drive_host.py")), "train.yaml", "export.yaml"]
    done = subprocess.run(
        command, cwd=folder, env={**os.environ, "PYTHONPATH": paths}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


def write_rows(path: Path, rows: list[dict[str, str]]) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def test_an_installed_plugin_is_found_and_its_names_are_known(with_example: Registry):
    assert "spell" in with_example.stages
    assert "spell" in with_example.probes
    assert "mu_law" in with_example.codecs
    assert {"rehearse", "pull_to_start", "confidence_penalty"} <= set(with_example.mitigations.names())


def test_the_readme_block_parses_and_keeps_its_order(readme_block: dict[str, Any], with_example: Registry):
    config = parse_block(readme_block, with_example)
    names = [type(instance).__name__ for instance in config.instances]
    assert names == ["SpellStage", "Rehearse", "PullToStart", "ConfidencePenalty"]
    assert config.instances[2].options.embedding_rate == 0.5


def test_the_readme_table_names_what_is_registered(root: Path, with_example: Registry):
    text = (root / "examples/plugin/README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \|", text, re.MULTILINE)
    assert len(rows) == 9
    catalogues = {catalogue.noun: catalogue for catalogue in vars(with_example).values()}
    assert all(name in catalogues[kind] for name, kind in rows)


@pytest.mark.host
def test_every_stage_hook_fires_on_the_example_and_in_the_order_of_the_configuration(trained: Path):
    fired = dict(json.loads((trained / "fired.json").read_text(encoding="utf-8")))
    known = {name for name in vars(StageHooks) if name.startswith("slm_")}
    assert {name for name, objects in fired.items() if objects} == known
    assert fired["slm_stage_start"] == ["PullToStart"]
    assert fired["slm_extra_loss"] == ["ConfidencePenalty"]
    assert fired["slm_export"] == ["SpellStage"]


@pytest.mark.host
def test_hooks_fire_in_the_order_of_a_run(trained: Path):
    order = [name for name, objects in json.loads((trained / "fired.json").read_text(encoding="utf-8")) if objects]
    first = {name: order.index(name) for name in order}
    run = [
        "check",
        "extend_tokenizer",
        "stage_start",
        "parameter_groups",
        "extra_loss",
        "extra_gradient",
        "stage_end",
        "export",
    ]
    assert sorted(run, key=lambda name: first[f"slm_{name}"]) == run
    # 3 steps of 2 micro-batches
    assert order.count("slm_extra_gradient") == 3
    assert order.count("slm_extra_loss") == 6


@pytest.mark.host
def test_the_rehearsed_rows_are_counted_beside_the_adapter(trained: Path):
    # floor(0.1 * 38) = 3
    card = json.loads((trained / "adapter/slm.json").read_text(encoding="utf-8"))
    assert card["replay"] == {"llm": 3}
    assert card["stage"] == "spell"


@pytest.mark.host
def test_the_task_token_is_one_token_of_the_exported_model_behind_the_units(trained: Path):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(trained / "exported")
    spell, last_unit = tokenizer.convert_tokens_to_ids(["<|spell|>", "<|199|>"])
    assert spell == last_unit + 1
    model = AutoModelForCausalLM.from_pretrained(trained / "exported")
    assert model.get_input_embeddings().weight.shape[0] > spell
    assert json.loads((trained / "exported/task_tokens.json").read_text(encoding="utf-8")) == {"spell": "<|spell|>"}


@pytest.mark.host
def test_penalty_and_entropy_are_logged_and_the_weights_moved(trained: Path):
    history = json.loads((trained / "adapter/trainer_state.json").read_text(encoding="utf-8"))["log_history"]
    steps = [entry for entry in history if "loss" in entry]
    assert len(steps) == 3
    # nothing has moved before the first step
    assert steps[0]["extra_gradient"] == 0
    assert steps[2]["extra_gradient"] > 0
    # near-uniform predictions of a random model over 768 rows: -.05 * ln 768 = -.33 at most
    assert all(-0.34 < entry["extra_loss"] < -0.1 for entry in steps)
    assert json.loads((trained / "adapter/drift.json").read_text(encoding="utf-8"))["rms"] > 0


def test_the_pull_is_the_gradient_of_its_penalty(example: Any):
    layer = torch.nn.Linear(2, 1, bias=False)
    pull = example.PullToStart(example.PullToStart.Options(strength=0.5))
    torch.nn.init.zeros_(layer.weight)
    pull.slm_stage_start(model=layer)
    layer.weight.data += torch.tensor([[3.0, 4.0]])
    layer.weight.grad = torch.ones(1, 2)
    # .5 / 2 * (9 + 16) = 6.25; gradient 1 + .5 * (3, 4)
    assert pull.slm_extra_gradient(parameters=list(layer.parameters())) == 6.25
    assert layer.weight.grad.tolist() == [[2.5, 3.0]]


def test_the_pull_is_zero_at_the_start_and_with_strength_zero(example: Any):
    for strength, moved in ((0.5, 0.0), (0.0, 1.0)):
        layer = torch.nn.Linear(2, 1, bias=False)
        pull = example.PullToStart(example.PullToStart.Options(strength=strength))
        pull.slm_stage_start(model=layer)
        layer.weight.data += moved
        layer.weight.grad = torch.ones(1, 2)
        assert pull.slm_extra_gradient(parameters=list(layer.parameters())) == 0.0
        assert layer.weight.grad.tolist() == [[1.0, 1.0]]


def test_the_entropy_is_taken_over_answer_tokens_only(example: Any):
    penalty = example.ConfidencePenalty(example.ConfidencePenalty.Options(strength=1.0))
    logits = torch.zeros(1, 3, 4)
    logits[0, 0] = torch.tensor([100.0, 0.0, 0.0, 0.0])
    # only the last label counts: it is predicted at position 1, uniformly over four, so H = ln 4
    inputs = {"labels": torch.tensor([[-100, -100, 2]])}
    outputs = type("Outputs", (), {"logits": logits})
    assert penalty.slm_extra_loss(inputs=inputs, outputs=outputs).item() == pytest.approx(-np.log(4))


def test_a_batch_without_answer_tokens_costs_nothing(example: Any):
    penalty = example.ConfidencePenalty(example.ConfidencePenalty.Options(strength=1.0))
    outputs = type("Outputs", (), {"logits": torch.zeros(1, 3, 4)})
    assert penalty.slm_extra_loss(inputs={"labels": torch.full((1, 3), -100)}, outputs=outputs).item() == 0


def test_the_probe_scores_the_share_of_words_spelt_right(example: Any):
    class Speller:
        vocabulary = None

        def answer(self, prompts, max_new_tokens):
            return ["c a t" if prompt == "<|spell|>cat" else "d o" for prompt in prompts]

    score = example.SpellProbe(example.SpellProbe.Options(words=["cat", "dog"])).score("spelling", Speller())
    # p = 1/2 of 2: standard error sqrt(.25 / 2)
    assert (score.skill, score.value, score.n, score.better) == ("spelling", 0.5, 2, "higher")
    assert score.standard_error == pytest.approx(0.125**0.5)


@pytest.mark.parametrize(("row", "turns"), [({"word": " cat "}, ("<|spell|>cat", "c a t")), ({"word": " "}, None)])
def test_the_stage_spells_a_word_and_drops_an_empty_one(example: Any, row: dict[str, str], turns: Any):
    sample = example.SpellStage().sample(row, 0)
    assert (sample and (sample.user, sample.assistant)) == turns


@given(st.lists(st.floats(-1, 1, width=32), max_size=50), st.integers(0, 50))
def test_the_codec_keeps_the_wave_and_streams_what_it_decodes(with_example: Registry, samples: list[float], cut: int):
    codec = load_codec("mu_law", with_example)
    wave_N = np.array(samples, dtype=np.float32)
    units = codec.encode(wave_N).values
    decoded_N = codec.decode(units)
    # half a step of 1/127.5 in the companded domain, whose slope is at most ln 256 * (1/255 + |x|)
    assert np.all(np.abs(decoded_N - wave_N) <= np.log(256) * (1 / 255 + np.abs(wave_N)) / 255 * 1.05 + 1e-6)
    stream = codec.stream()
    streamed_N = np.concatenate([stream.push(units[:cut]), stream.push(units[cut:]), stream.finish()])
    assert np.array_equal(streamed_N, decoded_N)


@pytest.mark.parametrize("align", [[], ["align=steady"]])
def test_the_example_s_corpus_is_spoken_by_its_voice_and_cut_at_its_words(
    align: list[str], with_example: Registry, tmp_path: Path
):
    given = ["name=bee", f"output={tmp_path}", "codec=mu_law", "corpus.spelling_bee.words=[cat,it]", "voice=beeps"]
    prepare(load([*given, *align]), with_example, Progress(Console(file=io.StringIO())))
    (path,) = (tmp_path / "bee/train").iterdir()
    rows = pyarrow.parquet.read_table(path).to_pylist()
    assert [(row["question_text"], row["answer_text"]) for row in rows] == [
        ("Spell cat", "c a t"),
        ("Spell it", "i t"),
    ]
    # .1 seconds a character: three letters apart are .3 seconds either way
    assert [span["start_s"] for span in rows[0]["answer_spans"]] == pytest.approx([0.0, 0.1, 0.2], abs=1e-6)
    # beside the others only the question tells the two alignments apart: 5 and 3 of 8 characters, or halves
    assert rows[0]["question_spans"][1]["start_s"] == pytest.approx(0.4 if align else 0.5)


def test_the_example_implements_every_register_hook_but_merges(example: Any):
    known = {name for name in vars(RegisterHooks) if name.startswith("slm_")}
    assert {name for name in vars(example) if name.startswith("slm_register_")} == known - {"slm_register_merges"}
