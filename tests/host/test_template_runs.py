"""Training, exports and later steps keep one form of prompts, and refuse another."""

from __future__ import annotations

import copy
import shutil
from datetime import datetime
from typing import Any

import pytest
from transformers import AutoTokenizer

from chat_families import BY_NAME
from host.world import UNITS, export_config, train_config, write_data
from slm_plugin import card
from slm_plugin.errors import ConfigError, WeightsError
from slm_plugin.generation import chat_form

pytestmark = [pytest.mark.host, pytest.mark.xdist_group("host")]


def prepared(config: dict[str, Any]) -> tuple[Any, Any]:
    """Return the tokenizer and the tokenised rows of a training that does not start."""
    from llamafactory.data import get_dataset, get_template_and_fix_tokenizer
    from llamafactory.hparams import get_train_args
    from llamafactory.model import load_tokenizer

    model_args, data_args, training_args, _, _ = get_train_args(copy.deepcopy(config))
    module = load_tokenizer(model_args)
    template = get_template_and_fix_tokenizer(module["tokenizer"], data_args)
    rows = get_dataset(template, model_args, data_args, training_args, stage="sft", **module)["train_dataset"]
    return module["tokenizer"], rows


@pytest.fixture(scope="module")
def qwen(tmp_path_factory):
    return BY_NAME["Qwen 3"].model(tmp_path_factory.mktemp("models") / "qwen")


@pytest.mark.parametrize("stage", ["asr", "tts", "sqa"])
@pytest.mark.parametrize("thinking", ["null", False, True])
def test_a_speech_stage_trains_without_a_thought_and_prompts_so(qwen, data, tmp_path, stage, thinking):
    changes = {"template": "qwen3", "enable_thinking": thinking, "stage": "sft", "max_samples": 4}
    config = train_config(qwen, data, tmp_path, **{**changes, "dataset": stage})
    config["slm"] = {"stage": stage, "units": {"count": UNITS}}
    config["enable_thinking"] = None if thinking == "null" else thinking
    tokenizer, rows = prepared(config)
    for row in rows:
        labels = [label for label in row["labels"] if label != -100]
        prompt = row["input_ids"][: len(row["input_ids"]) - len(labels)]
        user = tokenizer.decode(prompt).split("<|im_start|>user\n")[1].split("<|im_end|>")[0]
        chat = [{"role": "user", "content": user}]
        assert tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_dict=False) == prompt
        assert tokenizer.decode(prompt).endswith("<|im_start|>assistant\n<think>\n\n</think>\n\n")
        assert "think>" not in tokenizer.decode(labels)


def test_a_text_stage_without_units_keeps_enable_thinking(qwen, data, tmp_path):
    config = train_config(qwen, data, tmp_path, stage="llm", template="qwen3", slm={"stage": "llm"})
    tokenizer, rows = prepared(config)
    labels = [label for label in rows[0]["labels"] if label != -100]
    assert tokenizer.decode(labels).startswith("<think>\n\n</think>\n\n")
    prompt = tokenizer.apply_chat_template(
        [{"role": "user", "content": "hello 0"}], add_generation_prompt=True, return_dict=False
    )
    assert prompt == rows[0]["input_ids"][: len(rows[0]["input_ids"]) - len(labels)]


@pytest.fixture(scope="module")
def trained(qwen, data, run_host, tmp_path_factory):
    folder = tmp_path_factory.mktemp("qwen")
    run_host(train_config(qwen, data, folder / "asr", template="qwen3"))
    run_host(export_config(qwen, folder / "model", adapter=folder / "asr", template="qwen3", slm={}))
    return folder


def test_card_tokenizers_and_exports_hold_the_form_of_training(trained):
    records = [card.read(trained / name)["template"] for name in ("asr", "model")]
    assert records[0] == records[1]
    assert records[0]["name"] == "qwen3"
    assert records[0]["settings"] == {"enable_thinking": None}
    chat = [{"role": "user", "content": "hello"}]
    for name in ("asr", "model"):
        tokenizer = AutoTokenizer.from_pretrained(trained / name)
        assert chat_form.fingerprint(tokenizer) == records[0]["fingerprint"]
        text = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
        assert text.endswith("<|im_start|>assistant\n<think>\n\n</think>\n\n")


def test_an_export_without_a_template_takes_that_of_training(qwen, trained, run_host, tmp_path):
    run_host(export_config(qwen, tmp_path / "model", adapter=trained / "asr", template=None, slm={}))
    assert card.read(tmp_path / "model")["template"] == card.read(trained / "asr")["template"]


@pytest.mark.parametrize("step", ["train", "export"])
def test_another_template_than_the_one_before_is_refused(qwen, data, trained, run_host, tmp_path, step):
    before = trained / "asr"
    config = (
        train_config(qwen, data, tmp_path / "tts", stage="tts", template="qwen", adapter_name_or_path=str(before))
        if step == "train"
        else export_config(qwen, tmp_path / "model", adapter=before, template="qwen", slm={})
    )
    with pytest.raises(ConfigError, match=rf"template: 'qwen' builds other prompts than 'qwen3', which {before} was"):
        run_host(config)
    assert not (tmp_path / "model").exists()


def test_a_wrong_template_is_refused_before_training_unless_it_is_allowed(qwen, data, run_host, tmp_path):
    config = train_config(qwen, data, tmp_path / "asr", template="llama3")
    with pytest.raises(ConfigError) as caught:
        run_host(config)
    assert str(caught.value).startswith("template: 'llama3' renders ")
    assert "Templates that fit: " in str(caught.value)
    assert "qwen3_nothink" in str(caught.value)
    assert not (tmp_path / "asr").exists()
    config["slm"]["check_template"] = False
    config["max_steps"] = 1
    run_host(config)
    assert card.read(tmp_path / "asr")["template"]["name"] == "llama3"


def test_an_end_of_turn_that_the_tokenizer_lacks_is_refused_without_a_chat_template(llm, data, run_host, tmp_path):
    model = tmp_path / "base"
    shutil.copytree(llm, model)
    tokenizer = AutoTokenizer.from_pretrained(model)
    tokenizer.chat_template = None
    tokenizer.save_pretrained(model)
    (model / "chat_template.jinja").unlink(missing_ok=True)
    with pytest.raises(ConfigError, match=r"'qwen' ends a turn with '<\|im_end\|>', which is no single token"):
        run_host(train_config(model, data, tmp_path / "asr", template="qwen"))
    prepared(train_config(model, data, tmp_path / "asr", template="llama3"))


def test_an_end_of_turn_that_the_model_has_no_row_for_is_refused(llm, data, run_host, tmp_path):
    model = tmp_path / "base"
    shutil.copytree(llm, model)
    tokenizer = AutoTokenizer.from_pretrained(model)
    tokenizer.chat_template = None
    tokenizer.add_tokens(["<|im_start|>", "<|im_end|>"], special_tokens=True)
    tokenizer.save_pretrained(model)
    (model / "chat_template.jinja").unlink(missing_ok=True)
    with pytest.raises(ConfigError, match=r"'<\|im_end\|>', token \d+, of which the model knows \d+ only"):
        run_host(train_config(model, data, tmp_path / "asr", template="qwen"))


def test_models_of_two_templates_are_not_merged(trained, qwen, tmp_path):
    from slm_plugin.merge.plan import parse_merge
    from slm_plugin.merge.sources import open_sources
    from slm_plugin.plugins import Registry

    other = tmp_path / "other"
    shutil.copytree(trained / "model", other)
    found = card.read(other)
    card.write(other, {**found, "template": {"name": "chatml", "fingerprint": "0123456789ab"}})
    members = [{"model": str(trained / "model"), "weight": 0.5}, {"model": str(other), "weight": 0.5}]
    plan = parse_merge({"method": "linear", "models": members}, Registry.load(entry_points=False), "merge")
    with pytest.raises(WeightsError, match=r"was trained with template 'qwen3', .* with 'chatml'"):
        open_sources(plan)
    card.write(other, {key: value for key, value in found.items() if key != "template"})
    assert open_sources(plan)


def test_evaluation_and_serving_refuse_a_tokenizer_of_another_form(trained, tmp_path):
    from slm_plugin.generation.model import load_speaker

    model = tmp_path / "model"
    shutil.copytree(trained / "model", model)
    assert load_speaker(model, None)
    tokenizer = AutoTokenizer.from_pretrained(model)
    tokenizer.chat_template = BY_NAME["Qwen 3"].chat_template
    tokenizer.save_pretrained(model)
    with pytest.raises(WeightsError, match="was trained with template 'qwen3', but the tokenizer in"):
        load_speaker(model, None)


@pytest.fixture
def another_day(monkeypatch):
    """Return what lets chat templates render another date from then on."""
    from transformers.utils import chat_template_utils

    class Later(datetime):
        @classmethod
        def now(cls, tz=None):
            return cls(2031, 5, 4)

    return lambda: monkeypatch.setattr(chat_template_utils, "datetime", Later)


def test_a_date_in_the_own_chat_template_of_a_family_is_no_part_of_its_form(another_day):
    tokenizer = BY_NAME["Llama 3"].tokenizer()
    before = chat_form.fingerprint(tokenizer)
    plain = tokenizer.apply_chat_template([{"role": "user", "content": "hello"}], tokenize=False)
    another_day()
    assert tokenizer.apply_chat_template([{"role": "user", "content": "hello"}], tokenize=False) != plain
    assert chat_form.fingerprint(tokenizer) == before


def test_an_export_on_another_day_has_the_prompts_of_a_training_with_the_own_dated_chat_template(
    data, run_host, another_day, tmp_path
):
    model = BY_NAME["Llama 3"].model(tmp_path / "llama")
    run_host(train_config(model, data, tmp_path / "asr", template=None, max_steps=1))
    another_day()
    run_host(export_config(model, tmp_path / "model", adapter=tmp_path / "asr", template=None, slm={}))
    assert card.read(tmp_path / "model")["template"] == card.read(tmp_path / "asr")["template"]
    chat = [{"role": "user", "content": "hello"}]
    texts = [
        AutoTokenizer.from_pretrained(tmp_path / name).apply_chat_template(chat, tokenize=False)
        for name in ("asr", "model")
    ]
    assert texts[0] == texts[1]


@pytest.mark.parametrize("thinking", ["null", False, True])
def test_an_overfitted_model_transcribes_its_rows_with_and_without_an_export(qwen, run_host, tmp_path, thinking):
    from slm_plugin.eval.generator import load_generator
    from slm_plugin.eval.probes.speech_recognition import SpeechRecognition

    rows = write_data(tmp_path / "data", n_libri=8)
    config = train_config(qwen, rows, tmp_path / "asr", template="qwen3", max_steps=120, logging_steps=120)
    config |= {"lora_rank": 16, "lora_target": "all", "learning_rate": 1e-2, "per_device_train_batch_size": 8}
    config |= {"lr_scheduler_type": "constant", "enable_thinking": None if thinking == "null" else thinking}
    run_host(config)
    changes = {"adapter": tmp_path / "asr", "template": "qwen3", "enable_thinking": config["enable_thinking"]}
    run_host(export_config(qwen, tmp_path / "model", slm={}, **changes))
    probe = SpeechRecognition(SpeechRecognition.Options(data=str(rows / "libri.jsonl")))
    for model, adapter in ((tmp_path / "model", None), (qwen, tmp_path / "asr")):
        assert probe.score("wer", load_generator(model, adapter)).value == 0.0
