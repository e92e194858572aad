"""Prompts at inference are those of training, for every template of LLaMA-Factory, and a wrong one is refused."""

from __future__ import annotations

import copy
import functools
import json
import re
import shutil
from typing import Any

import pytest
from jinja2 import TemplateError
from transformers import AutoTokenizer

from chat_families import BY_NAME, FAMILIES
from host.world import UNITS, export_config, train_config
from slm_plugin import card
from slm_plugin.errors import ConfigError, WeightsError
from slm_plugin.generation import chat_form
from slm_plugin.generation.thought import THOUGHTS
from slm_plugin.vocabulary import UnitVocabulary, units_to_text
from tiny_models import make_tokenizer

pytestmark = [pytest.mark.host, pytest.mark.xdist_group("host")]

NOT_WRITABLE = {"breeze", "ernie_nothink"}
"""Their prompt ends in a blank that the first word of an earlier answer takes in when both are one text."""
WITHOUT_TOOLS = {"gemma4", "gemma4n"}
"""Templates whose form of tools is no sequence of JSON texts: the chat template refuses tools."""
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "find",
            "description": "finds a thing",
            "parameters": {
                "type": "object",
                "properties": {"what": {"type": "string", "enum": ["cat", "dog"]}, "n": {"type": "integer"}},
                "required": ["what"],
            },
        },
    }
]
CALL = {"name": "find", "arguments": {"what": "cat", "n": 1}}


def all_templates() -> dict[str, Any]:
    from llamafactory.data.template import TEMPLATES

    return TEMPLATES


@functools.cache
def plain_tokenizer() -> Any:
    return make_tokenizer()


def as_text(template: Any, thinking: Any) -> Any:
    """Return a copy of a template for text; those for images need a processor, which changes no text."""
    from llamafactory.data.mm_plugin import get_mm_plugin

    found = copy.copy(template)
    found.enable_thinking, found.mm_plugin = thinking, get_mm_plugin("base")
    return found


def ready(template: Any, thinking: Any) -> tuple[Any, Any]:
    """Return a template as training has it, and a tokenizer that has its tokens."""
    template = as_text(template, thinking)
    tokenizer = copy.deepcopy(plain_tokenizer())
    tokenizer.chat_template = None
    texts = [*template.stop_words, *(word.strip() for word in template.thought_words)]
    for key in ("user", "assistant", "system", "observation", "prefix", "function"):
        for slot in getattr(template, f"format_{key}").slots:
            if isinstance(slot, dict):
                texts.append(slot["token"])
            elif isinstance(slot, str):
                texts += re.findall("<[|\uff5c][^<>]*[|\uff5c]>|<[|]?[a-z_/]+[|]?>|\\[[A-Z_/|a-z]+\\]", slot)
    tokenizer.add_tokens(list(dict.fromkeys(texts)), special_tokens=True)
    template.fix_special_tokens(tokenizer)
    UnitVocabulary.extend(tokenizer, UNITS)
    return template, tokenizer


def trained_prompt(
    template: Any, tokenizer: Any, chat: list[dict[str, Any]], tools: Any, mask_history: bool
) -> list[int]:
    """Return the ids before the last answer, as LLaMA-Factory's own processor joins them."""
    from llamafactory.data.processor import SupervisedDatasetProcessor
    from llamafactory.hparams import DataArguments

    arguments = DataArguments(template="x", cutoff_len=4096, mask_history=mask_history)
    processor = SupervisedDatasetProcessor(template=template, tokenizer=tokenizer, processor=None, data_args=arguments)
    system = chat[0]["content"] if chat[0]["role"] == "system" else None
    turns = [message for message in chat if message["role"] != "system"]
    answer = [{"role": "assistant", "content": "blue"}]
    text = json.dumps(tools, ensure_ascii=False) if tools else None
    ids, labels = processor._encode_data_example(turns, answer, system, text, [], [], [])
    n_answer = next(n for n, label in enumerate(reversed(labels)) if label == -100)
    return ids[: len(ids) - n_answer]


def chats() -> dict[str, tuple[list[dict[str, Any]], Any]]:
    system = {"role": "system", "content": "you are kind"}
    user = {"role": "user", "content": f"Please repeat: {units_to_text([3, 1, 2])}"}
    several = [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "red dog"}, user]
    thought = [
        {"role": "user", "content": "hello"},
        {"role": "assistant", "content": "<think>\na\n</think>\n\nred"},
        user,
    ]
    return {
        "user": ([user], None),
        "system": ([system, user], None),
        "turns": (several, None),
        "system and turns": ([system, *several, {"role": "assistant", "content": "one"}, user], None),
        "tools": ([system, user], TOOLS),
        "thought": (thought, None),
    }


@pytest.mark.parametrize("thinking", [None, False, True])
def test_every_template_is_written_as_it_prompts_in_training(thinking):
    from slm_plugin.host.template_writing import empty_thought, write_jinja

    refused, without_tools, n = set(), set(), 0
    for name, registered in all_templates().items():
        if thinking is not None and not empty_thought(registered):
            continue
        template, tokenizer = ready(registered, thinking)
        for mask_history in (False, True) if empty_thought(registered) else (False,):
            tokenizer.chat_template = write_jinja(template, tokenizer, not mask_history)
            for chat, tools in chats().values():
                expected = trained_prompt(template, tokenizer, chat, tools, mask_history)
                try:
                    found = tokenizer.apply_chat_template(
                        chat, tools=tools, add_generation_prompt=True, return_dict=False
                    )
                except TemplateError as error:
                    without_tools.add((name, str(error).partition(" of tools")[0]))
                    continue
                n += 1
                if found != expected:
                    refused.add(name)
    assert refused == (NOT_WRITABLE if thinking is None else set())
    assert without_tools == {(name, "definitions") for name in WITHOUT_TOOLS}
    assert n > 100


def test_calls_of_functions_and_their_results_are_those_of_training():
    from slm_plugin.host.template_writing import write_jinja

    written = []
    for name in ("llama3", "qwen", "qwen3", "mistral", "glm4", "chatml", "minimax1"):
        template, tokenizer = ready(all_templates()[name], None)
        tokenizer.chat_template = write_jinja(template, tokenizer, True)
        trained = [
            {"role": "user", "content": "hello"},
            {"role": "function", "content": json.dumps(CALL)},
            {"role": "observation", "content": "a cat"},
        ]
        called = [
            trained[0],
            {"role": "assistant", "tool_calls": [{"type": "function", "function": CALL}]},
            {"role": "tool", "content": "a cat"},
        ]
        found = tokenizer.apply_chat_template(called, tools=TOOLS, add_generation_prompt=True, return_dict=False)
        if found == trained_prompt(template, tokenizer, trained, TOOLS, False):
            written.append(name)
    assert written == ["llama3", "qwen", "qwen3", "mistral", "glm4", "chatml", "minimax1"]


def test_thoughts_of_every_reasoning_template_are_known_to_the_filter():
    from slm_plugin.host.template_writing import empty_thought

    words = {tuple(map(str.strip, found.thought_words)) for found in all_templates().values() if empty_thought(found)}
    assert words == set(THOUGHTS)


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_the_template_of_each_family_fits_it_and_its_export_prompts_as_in_training(family, monkeypatch):
    from slm_plugin.host import chat_template, template_checks

    tokenizer = family.tokenizer(UNITS)
    names = template_checks.fitting(all_templates(), tokenizer, len(tokenizer))
    assert family.template in names
    template = as_text(all_templates()[family.template], None)
    active = _active(monkeypatch)
    template.fix_special_tokens(tokenizer)
    own = tokenizer.chat_template
    chat_template._fit(tokenizer, template, own, family.template, True, active)
    chat = [{"role": "user", "content": units_to_text([1, 2])}]
    assert (tokenizer.apply_chat_template(chat, tokenize=False) != _rendered(tokenizer, own, chat)) == family.changed
    for messages, tools in chats().values():
        found = tokenizer.apply_chat_template(messages, tools=tools, add_generation_prompt=True, return_dict=False)
        assert found == trained_prompt(template, tokenizer, messages, tools, False)


def _rendered(tokenizer: Any, chat_template: str, chat: list[dict[str, Any]]) -> str:
    return str(tokenizer.apply_chat_template(chat, chat_template=chat_template, tokenize=False))


def _active(monkeypatch: pytest.MonkeyPatch) -> Any:
    from types import SimpleNamespace

    return SimpleNamespace(
        config=SimpleNamespace(block=SimpleNamespace(check_template=True)), where="slm", model_args=None
    )


@pytest.mark.parametrize(
    ("family", "template", "fits"),
    [
        ("Qwen 2.5", "llama3", "qwen"),
        ("Llama 3", "qwen", "llama3"),
        ("SmolLM2", "phi4", "smollm2"),
        ("Gemma 3", "mistral", "gemma"),
        ("Phi 4", "chatml", "phi4"),
        ("Mistral", "llama2", "mistral"),
        ("Qwen 3", "empty", "qwen3"),
        ("SmolLM2", "cpm4", "smollm2"),
        ("Phi 3", "phi4_mini", "phi"),
    ],
)
def test_a_template_of_another_family_is_refused_and_one_that_fits_is_named(family, template, fits):
    from slm_plugin.host import template_checks as checks

    tokenizer = BY_NAME[family].tokenizer(UNITS)
    found = all_templates()[template]
    own = checks.OwnForm.of(tokenizer)
    problem = checks.problem_with_end(found, tokenizer, len(tokenizer)) or checks.problem_with_form(
        found, tokenizer, own
    )
    assert problem is not None
    names = checks.fitting(all_templates(), tokenizer, len(tokenizer))
    assert any(name.startswith(fits) for name in names[:6])
    assert template not in names


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


def test_the_page_on_settings_names_templates_that_fit_and_counts_logits(root):
    from slm_plugin.host import template_checks

    page = (root / "docs/how-to/choose-settings.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| ([A-Z][^|]*?) \| (`[^|]*`) \| ([\d,]+) \| ([\d.]+) GB \|", page, re.MULTILINE)
    assert {name for name, *_ in rows} == set(BY_NAME)
    for name, templates, tokens, gigabytes in rows:
        tokenizer = BY_NAME[name].tokenizer()
        assert BY_NAME[name].template in templates
        assert set(re.findall("`(.+?)`", templates)) <= set(
            template_checks.fitting(all_templates(), tokenizer, len(tokenizer))
        )
        padded = -(-(int(tokens.replace(",", "")) + 10_000) // 64) * 64
        assert float(gigabytes) == round(12 * 1200 * padded / 1e9, 2), (name, 12 * 1200 * padded / 1e9)


def test_numbers_of_the_page_on_settings_are_those_of_the_registry(root):
    from slm_plugin.host.template_writing import empty_thought

    page = " ".join((root / "docs/how-to/choose-settings.md").read_text(encoding="utf-8").split())
    assert f"of the {len(all_templates())} templates" in page
    reasoning = [name for name, template in all_templates().items() if empty_thought(template)]
    assert f"`gpt_oss` and {len(reasoning) - 4} more" in page
