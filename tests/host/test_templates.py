"""Prompts at inference are those of training, for every template of LLaMA-Factory, and a wrong one is refused."""

from __future__ import annotations

import copy
import functools
import json
import re
from typing import Any

import pytest
from jinja2 import TemplateError

from chat_families import BY_NAME, FAMILIES
from host.world import UNITS
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
