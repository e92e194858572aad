"""A model that writes its own replay set, by transformers."""

from __future__ import annotations

import json
import math
import subprocess
import sys

import pytest
import torch
from transformers import AutoModelForCausalLM

from replay_synthesis.world import TEXTS, UNITS, rows, write_rows
from slm_plugin import card
from slm_plugin.errors import ConfigError, DataError, VocabularyError, WeightsError
from slm_plugin.generation.model import load_model, load_speaker
from slm_plugin.generation.protocol import Sampling
from slm_plugin.generation.transformers_engine import TransformersEngine
from slm_plugin.plugins import Registry
from slm_plugin.replay_synthesis.command import run
from slm_plugin.replay_synthesis.options import SynthesisOptions
from slm_plugin.strict import parse
from tiny_models import make_model


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


def options(model, output, stage, n_rows, **changes):
    given = {"model": model, "output": output, "stage": stage, "rows": n_rows, "name": f"own_{stage}"}
    settings = {"engine": "transformers", "max_new_tokens": 64, "limits": {"near_duplicates": 1.0}}
    return parse(SynthesisOptions, {**given, **settings, **changes}, "test")


def written(folder, name):
    return [json.loads(line) for line in (folder / f"{name}.jsonl").read_text().splitlines()]


def test_a_model_writes_questions_and_answers_of_its_own(world_model, tmp_path):
    run(options(world_model, tmp_path, "llm", 6))
    found = written(tmp_path, "own_llm")
    assert len(found) == 6
    # what it was trained on, and nothing of its spoken tasks
    assert all(row in rows("llm") for row in found)
    assert len({row["input"] for row in found}) == 6


@pytest.mark.parametrize("stage", ["llm", "asr", "tts", "sqa"])
def test_given_prompts_are_answered_as_the_model_learned(stage, world_model, tmp_path):
    prompts = write_rows(tmp_path / "prompts.jsonl", rows(stage))
    done = run(options(world_model, tmp_path / "out", stage, 12, prompts=prompts, temperature=0.0))
    found = written(tmp_path / "out", f"own_{stage}")
    assert len(found) >= 11, done
    assert all(row.items() <= {**expected}.items() for row in found for expected in [_expected(stage, row)])
    sample = Registry.load().stages.get(stage)().sample
    assert all(sample(row, UNITS) for row in found)


def _expected(stage, row):
    given = {"llm": "input", "asr": "discrete_unit", "tts": "transcription", "sqa": "input_unit"}[stage]
    return next(other for other in rows(stage) if other[given] == row[given])


def test_the_model_s_own_speech_becomes_something_to_recognise(world_model, tmp_path):
    prompts = write_rows(tmp_path / "texts.jsonl", [{"text": text} for text in TEXTS])
    run(options(world_model, tmp_path / "out", "asr", 8, prompts=prompts, temperature=0.0))
    found = written(tmp_path / "out", "own_asr")
    assert len(found) == 8
    assert all(row.pop("origin") == "own_speech" for row in found)
    assert all(row["discrete_unit"] == _expected_units(row["transcription"]) for row in found)


def _expected_units(text):
    return next(row["discrete_unit"] for row in rows("asr") if row["transcription"] == text)


def test_the_same_seed_gives_the_same_bytes_and_another_does_not(world_model, tmp_path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        run(options(world_model, tmp_path / name, "llm", 4, seed=seed))
    texts = [(tmp_path / name / "own_llm.jsonl").read_bytes() for name in "abc"]
    assert texts[0] == texts[1] != texts[2]
    cards = [(tmp_path / name / "synthesis.json").read_bytes() for name in "ab"]
    assert cards[0] == cards[1]


def test_the_card_accounts_for_every_answer(world_model, tmp_path):
    run(options(world_model, tmp_path, "llm", 6))
    found = json.loads((tmp_path / "synthesis.json").read_text())["own_llm"]
    counts = found["counts"]
    assert counts["wanted"] == counts["kept"] == 6
    assert counts["asked"] == counts["kept"] + sum(counts["dropped"].values())
    assert found["model"] == {"path": str(world_model), "fingerprint": card.fingerprint(world_model)}
    assert found["seed"] == 1126
    assert found["options"]["temperature"] == 1.0
    # the model was also trained to hear and speak, and starts such turns too
    assert any("units where none belong" in reason for reason in counts["dropped"])


def test_other_data_sets_of_the_folder_stay(world_model, tmp_path):
    (tmp_path / "dataset_info.json").write_text(json.dumps({"mine": {"file_name": "mine.jsonl"}}))
    for stage in ("llm", "tts"):
        prompts = write_rows(tmp_path / f"{stage}_prompts.jsonl", rows(stage))
        run(options(world_model, tmp_path, stage, 2, prompts=prompts))
    registry = json.loads((tmp_path / "dataset_info.json").read_text())
    assert registry == {
        "mine": {"file_name": "mine.jsonl"},
        "own_llm": {"file_name": "own_llm.jsonl", "formatting": "slm_llm"},
        "own_tts": {"file_name": "own_tts.jsonl", "formatting": "slm_tts"},
    }
    assert set(json.loads((tmp_path / "synthesis.json").read_text())) == {"own_llm", "own_tts"}
    with pytest.raises(DataError, match="already has a data set 'mine'; choose another --name"):
        run(options(world_model, tmp_path, "llm", 2, name="mine"))
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_an_output_that_cannot_be_written_is_one_line(world_model, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"file is a file; --output takes a folder"):
        run(options(world_model, tmp_path / "file", "llm", 1))

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.write_text", full)
    with pytest.raises(DataError, match=r"own_llm.jsonl cannot be written \(No space left on device\)"):
        run(options(world_model, tmp_path / "out", "llm", 1))
    assert list((tmp_path / "out").iterdir()) == []


def test_nothing_is_written_where_nothing_can_be_kept(tmp_path):
    model = make_model(tmp_path / "random", units=UNITS)
    prompts = write_rows(tmp_path / "prompts.jsonl", rows("tts"))
    with pytest.raises(DataError, match=r"none of 8 answers could be kept \(.*\); nothing was written"):
        run(options(model, tmp_path / "out", "tts", 2, prompts=prompts, max_new_tokens=8))
    assert not (tmp_path / "out").exists()


def test_an_improbable_answer_is_dropped_on_request(world_model, tmp_path):
    prompts = write_rows(tmp_path / "prompts.jsonl", rows("llm"))
    # the model hardly errs: a floor of e^0 drops everything, a low one nothing
    asked = {"prompts": prompts, "temperature": 0.0}
    limits = {"near_duplicates": 1.0, "min_log_probability": -2.0}
    run(options(world_model, tmp_path / "low", "llm", 4, **asked, limits=limits))
    assert len(written(tmp_path / "low", "own_llm")) == 4
    with pytest.raises(DataError, match="improbable 4"):
        run(options(world_model, tmp_path / "high", "llm", 1, **asked, limits={"min_log_probability": 0.0}))


def test_the_log_probability_is_the_mean_over_answer_and_end(world_model):
    speaker, engine = load_speaker(world_model, None), TransformersEngine(load_model(world_model, None))
    prompts = [speaker.prompt("say red cat"), speaker.prompt("<|1|><|2|><|3|><|7|><|8|><|9|>")]
    sampling = Sampling(1.0, 1.0, 64, speaker.stop_ids, 0, True)
    model = AutoModelForCausalLM.from_pretrained(world_model)
    for prompt, answer in zip(prompts, engine.generate(prompts, sampling), strict=True):
        ids, total = list(prompt), 0.0
        end = model.config.eos_token_id
        for token in (*answer.ids, end):
            with torch.no_grad():
                total += float(model(torch.tensor([ids])).logits[0, -1].log_softmax(-1)[token])
            ids.append(token)
        assert answer.finished
        assert answer.log_probability == pytest.approx(total / (len(answer.ids) + 1), abs=1e-4)


def test_generation_leaves_the_random_state_alone(world_model):
    speaker, engine = load_speaker(world_model, None), TransformersEngine(load_model(world_model, None))
    before = torch.get_rng_state()
    engine.generate([speaker.user_header()] * 3, Sampling(1.0, 0.9, 8, speaker.stop_ids, 5))
    assert torch.equal(torch.get_rng_state(), before)


def test_draws_follow_temperature_and_top_p(world_model):
    speaker, engine = load_speaker(world_model, None), TransformersEngine(load_model(world_model, None))
    prompts = [speaker.user_header()] * 16

    def n_different(temperature, top_p):
        answers = engine.generate(prompts, Sampling(temperature, top_p, 40, speaker.stop_ids, 0))
        return len({answer.ids for answer in answers})

    assert n_different(0.0, 1.0) == 1
    assert n_different(1.0, 1e-6) == 1
    assert n_different(1.0, 1.0) > 6


def test_an_adapter_that_brought_its_own_units_writes(tmp_path, world_model):
    from peft import LoraConfig, get_peft_model

    base = make_model(tmp_path / "base", hidden=128)
    adapted = AutoModelForCausalLM.from_pretrained(base)
    trained = AutoModelForCausalLM.from_pretrained(world_model)
    adapted.resize_token_embeddings(trained.config.vocab_size, mean_resizing=False)
    config = LoraConfig(r=2, target_modules=["q_proj"], modules_to_save=["embed_tokens", "lm_head"])
    get_peft_model(adapted, config).save_pretrained(tmp_path / "adapter", save_embedding_layers=False)
    load_speaker(world_model, None).tokenizer.save_pretrained(tmp_path / "adapter")
    speaker = load_speaker(base, tmp_path / "adapter")
    assert speaker.vocabulary.count == UNITS
    assert load_model(base, tmp_path / "adapter").config.vocab_size == trained.config.vocab_size


@pytest.mark.parametrize("tie", [False, True])
def test_an_adapter_that_trained_only_the_rows_of_its_own_units_is_loaded_with_them(tmp_path, tie):
    from peft import LoraConfig, get_peft_model

    base = make_model(tmp_path / "base", tie=tie)
    adapted = AutoModelForCausalLM.from_pretrained(base)
    height = adapted.config.vocab_size
    adapted.resize_token_embeddings(height + UNITS, mean_resizing=False)
    rows = list(range(height, height + UNITS))
    targets = ["embed_tokens"] if tie else ["embed_tokens", "lm_head"]
    config = LoraConfig(r=2, target_modules=["q_proj"], trainable_token_indices=dict.fromkeys(targets, rows))
    trained = get_peft_model(adapted, config)
    trained.save_pretrained(tmp_path / "adapter", save_embedding_layers=False)
    loaded, merged = load_model(base, tmp_path / "adapter"), trained.merge_and_unload()
    for one, other in zip(loaded.state_dict().values(), merged.state_dict().values(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"stage": "tts"}, "tts needs --prompts"),
        ({"temperature": 0.0}, "--temperature 0 without --prompts writes one row again and again"),
        ({"limits": {"min_tokens": 5, "max_tokens": 4}}, "--max-tokens 4 is below --min-tokens 5"),
    ],
)
def test_combinations_without_rows_are_refused_before_anything_is_loaded(changes, words, tmp_path):
    given = {"stage": "llm", **changes}
    with pytest.raises(ConfigError, match=words):
        run(options(tmp_path / "none", tmp_path, given.pop("stage"), 1, **given))


def test_a_wrong_option_is_named_with_the_nearest(tmp_path):
    with pytest.raises(ConfigError, match=r"'transformer' is not accepted. Did you mean 'transformers'"):
        options(tmp_path, tmp_path, "llm", 1, engine="transformer")


def test_a_model_without_units_is_refused_for_speech(tmp_path):
    model = make_model(tmp_path / "text")
    prompts = write_rows(tmp_path / "prompts.jsonl", rows("tts"))
    with pytest.raises(VocabularyError, match="has no unit tokens, and rows of tts are made of them"):
        run(options(model, tmp_path / "out", "tts", 1, prompts=prompts))


def test_a_missing_model_is_one_line_on_the_command_line(tmp_path):
    arguments = ["--model", str(tmp_path / "nowhere"), "--stage", "llm", "--rows", "2", "--output", str(tmp_path)]
    done = subprocess.run(
        [sys.executable, "-m", "slm_plugin", "replay", "synthesise", *arguments],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == f"slm: WeightsError: there is no model folder {tmp_path / 'nowhere'}."
    with pytest.raises(WeightsError):
        load_speaker(tmp_path / "nowhere", None)


def test_rows_that_cannot_be_had_end_after_the_attempts(world_model, tmp_path):
    # only 12 different chats exist in this world
    done = run(options(world_model, tmp_path, "llm", 20, attempts=3))
    found = json.loads((tmp_path / "synthesis.json").read_text())["own_llm"]["counts"]
    assert found["kept"] <= 12
    assert found["asked"] == 60
    assert f"{found['kept']} of 20 rows, 60 asked for" in done
    assert math.isclose(sum(found["dropped"].values()), 60 - found["kept"])
