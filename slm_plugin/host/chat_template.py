"""The chat form of training: checked before it, written into the tokenizer, and recorded in ``slm.json``.

The prompts of probes, evaluation, ``slm infer`` and the server come from the tokenizer's chat template, so it must
render, id by id, what LLaMA-Factory's template puts in front of an answer in training.
"""

from __future__ import annotations

import copy
import functools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from slm_plugin import card
from slm_plugin.errors import ConfigError, Problem, WeightsError
from slm_plugin.generation import chat_form
from slm_plugin.host import runtime, template_checks
from slm_plugin.host.template_writing import empty_thought, write_jinja
from slm_plugin.vocabulary import unit_token
from slm_plugin.weights.staging import intended

_SETTINGS = ("default_system", "enable_thinking", "mask_history", "preserve_thinking", "tool_format")
"""Keys of LLaMA-Factory's data arguments that decide what a prompt is."""
_TEXT_STAGE = "llm"


def patch(module: Any) -> None:
    """Let LLaMA-Factory's template and its tokenizer agree wherever both are made ready, if a block is in force."""
    stock = module.get_template_and_fix_tokenizer

    @functools.wraps(stock)
    def get_template_and_fix_tokenizer(tokenizer: Any, data_args: Any) -> Any:
        active = runtime.active()
        return stock(tokenizer, data_args) if active is None else _prepare(stock, tokenizer, data_args, active)

    module.get_template_and_fix_tokenizer = get_template_and_fix_tokenizer


def _prepare(
    stock: Any, tokenizer: Any, data_args: Any, active: runtime.Active, folders: list[Path] | None = None
) -> Any:
    """Check a template, make the tokenizer render its prompts, and note what ``slm.json`` records.

    Args:
        stock: LLaMA-Factory's ``get_template_and_fix_tokenizer``.
        tokenizer: Gets the chat template.
        data_args: LLaMA-Factory's data arguments.
        active: The block in force.
        folders: Models that this run goes on from; by default the model of the block, then its adapters.

    Raises:
        ConfigError: The template does not belong to the model, or builds other prompts than the training before.
    """
    checked = active.config.block.check_template
    if folders is None:
        folders = [Path(str(active.model_args.model_name_or_path)), *map(Path, active.adapters)]
    known = next((found for folder in reversed(folders) if (found := chat_form.recorded(folder))), {})
    # an export, a chat and an evaluation have the form of the training before; training has its own
    arguments = data_args if active.trains else _with_settings(data_args, known)
    if checked and (active.trains or not (known or active.adapters)):
        _require_fitting(tokenizer, arguments, active)
    if not active.trains and arguments.template is None and known:
        # the host makes a template from this one, and a date in that is the date of training
        tokenizer.chat_template = _trained_chat_template(folders, known) or tokenizer.chat_template
    own = tokenizer.chat_template
    template = stock(tokenizer, arguments)
    if empty_thought(template) and template.enable_thinking and _is_spoken(active):
        template.enable_thinking = None
        runtime.say(
            "speech stages train without a thought: enable_thinking: true counts as null; rows that hold a thought"
            " keep it"
        )
    if arguments.template is None and not own:
        return template
    in_history = not (arguments.mask_history and not template.preserve_thinking)
    _fit(tokenizer, template, own, arguments.template, in_history, active)
    settings = {key: getattr(arguments, key) for key in _SETTINGS if getattr(arguments, key)}
    settings.pop("enable_thinking", None)
    if empty_thought(template):
        settings["enable_thinking"] = template.enable_thinking
    record = {"name": arguments.template, "fingerprint": chat_form.fingerprint(tokenizer), "settings": settings}
    for folder in folders if checked else ():
        _require_same(record, chat_form.recorded(folder), folder, active)
    active.facts[chat_form.KEY] = record
    return template


def _with_settings(data_args: Any, known: Mapping[str, Any]) -> Any:
    """Return data arguments with the template and settings of the training before, where this run sets none."""
    if not known:
        return data_args
    arguments, settings = copy.copy(data_args), known.get("settings") or {}
    for key, value in {"template": known.get("name"), **settings}.items():
        if key not in ("template", "default_system", "tool_format") or getattr(arguments, key) is None:
            setattr(arguments, key, value)
    return arguments


def _trained_chat_template(folders: list[Path], known: Mapping[str, Any]) -> str | None:
    """Return the chat template in the last folder with this record; None if that holds no tokenizer."""
    folder = next(folder for folder in reversed(folders) if chat_form.recorded(folder) == known)
    found: str | None = _tokenizer(folder).chat_template if (folder / "tokenizer_config.json").is_file() else None
    return found


def _is_spoken(active: runtime.Active) -> bool:
    return active.vocabulary is not None or active.config.block.stage not in (None, _TEXT_STAGE)


def _require_fitting(tokenizer: Any, data_args: Any, active: runtime.Active) -> None:
    """Refuse a template that does not belong to the model.

    Raises:
        ConfigError: Says why, and which templates of LLaMA-Factory do.
    """
    from llamafactory.data.template import TEMPLATES

    template = TEMPLATES.get(data_args.template) if data_args.template is not None else None
    if template is None:
        return
    n_known = _embedding_rows(active)
    reason = (
        template_checks.problem_with_end(template, tokenizer, n_known)
        or template_checks.problem_with_answer(template)
        or template_checks.problem_with_form(template, tokenizer, template_checks.OwnForm.of(tokenizer))
    )
    if reason is not None:
        names = template_checks.fitting(TEMPLATES, tokenizer, n_known)
        raise _refusal(f"{data_args.template!r} {reason}.", names, tokenizer.chat_template, active)


def _refusal(text: str, names: list[str], chat_template: str | None, active: runtime.Active) -> ConfigError:
    advice = template_checks.advice(names, bool(chat_template))
    where = active.where.removesuffix("slm")
    return ConfigError(
        [Problem(f"{where}template", f"{text} {advice}. slm.check_template: false goes on all the same.")]
    )


def _embedding_rows(active: runtime.Active) -> int | None:
    """Return how many tokens the model has; None if its configuration does not say."""
    from transformers import AutoConfig

    model_args = active.model_args
    try:
        config = AutoConfig.from_pretrained(
            model_args.model_name_or_path,
            trust_remote_code=model_args.trust_remote_code,
            cache_dir=model_args.cache_dir,
            revision=model_args.model_revision,
            token=model_args.hf_hub_token,
        )
    except Exception:
        # the host loads it in a moment, and reports what is wrong with it
        return None
    found = getattr(config.get_text_config(), "vocab_size", None)
    return int(found) if found else None


def _require_same(record: Any, known: Any, folder: Path, active: runtime.Active) -> None:
    """Refuse a template that renders other prompts than those a model or adapter was trained with.

    A stage may change between thoughts and none, which the same template does by its settings.

    Raises:
        ConfigError: Names the folder and both templates.
    """
    if not known.get("fingerprint") or known["fingerprint"] == record["fingerprint"]:
        return
    if active.trains and known.get("name") == record["name"]:
        return
    where = active.where.removesuffix("slm")
    advice = f"Set template: {known['name']}" if known.get("name") else "Leave template out"
    text = (
        f"{_named(record['name'])} builds other prompts than {_named(known.get('name'))}, which {folder} was trained"
        f" with. {advice}{_said(known)}; slm.check_template: false goes on all the same."
    )
    raise ConfigError([Problem(f"{where}template", text)])


def _said(known: Any) -> str:
    settings = {key: value for key, value in (known.get("settings") or {}).items() if key != "enable_thinking"}
    return f" and {', '.join(f'{key}: {json.dumps(value)}' for key, value in settings.items())}" if settings else ""


def _fit(tokenizer: Any, template: Any, own: str | None, name: Any, in_history: bool, active: runtime.Active) -> None:
    """Give a tokenizer the chat template that renders the prompts of training: its own where that one does.

    Raises:
        ConfigError: No chat template renders them.
    """
    tokenizer.chat_template = own
    found = differences(tokenizer, template, in_history) if own else [""]
    if not found:
        return
    try:
        written = write_jinja(template, tokenizer, in_history)
        if own and all(case.endswith("tools") for case in found):
            written = f"{{% if tools %}}{written}{{% else %}}{own}{{% endif %}}"
        tokenizer.chat_template = written
        left = differences(tokenizer, template, in_history, may_refuse=True)
        if not left:
            return
        reason = f"the prompt of {left[0]}, written as one text, is made of other tokens"
    except ValueError as error:
        reason = str(error)
    tokenizer.chat_template = own
    text = f"{_named(name)} cannot be written as a chat template for this tokenizer: {reason}"
    if active.config.block.check_template:
        from llamafactory.data.template import TEMPLATES

        names = template_checks.fitting(TEMPLATES, tokenizer, _embedding_rows(active))
        raise _refusal(f"{text}.", [other for other in names if other != name], own, active)
    runtime.say(f"template {text}: prompts at inference differ from those of training")


def _named(name: str | None) -> str:
    return "the tokenizer's own chat template" if name is None else repr(name)


def differences(tokenizer: Any, template: Any, in_history: bool, may_refuse: bool = False) -> list[str]:
    """Return in which conversations a tokenizer's prompt is not that of training; an empty list if in none.

    Args:
        tokenizer: With the chat template to look at.
        template: LLaMA-Factory's template, as training has it.
        in_history: Whether training is on every turn.
        may_refuse: Whether a chat template that refuses to render tools counts as equal.
    """
    found = []
    for case, (messages, system, tools) in _conversations(tokenizer).items():
        trained = training_prompt(tokenizer, template, messages, system, tools, in_history)
        chat = ([{"role": "system", "content": system}] if system else []) + messages
        try:
            # two lists, because templates may change what they are given
            rendered = tokenizer.apply_chat_template(
                copy.deepcopy(chat), tools=copy.deepcopy(tools), add_generation_prompt=True, return_dict=False
            )
        except Exception:
            rendered = trained if may_refuse and tools else None
        if rendered is None or list(rendered) != trained:
            found.append(case)
    return found


def training_prompt(
    tokenizer: Any, template: Any, messages: Any, system: str | None, tools: Any, in_history: bool
) -> list[int]:
    """Return the ids that LLaMA-Factory puts in front of the answer to the last of ``messages`` in training."""
    text = json.dumps(tools, ensure_ascii=False) if tools else None
    answered = [*messages, {"role": "assistant", "content": "fine"}]
    pairs = template.encode_multiturn(tokenizer, answered, system, text, not in_history)
    return [token for pair in pairs for part in pair for token in part][: -len(pairs[-1][1])]


def _conversations(tokenizer: Any) -> dict[str, tuple[list[dict[str, str]], str | None, Any]]:
    """Return the conversations that are compared: messages, system text and tools by what they are called."""
    spoken = f"Repeat: {unit_token(0)}{unit_token(1)}" if unit_token(1) in tokenizer.get_vocab() else "Say it again"
    one = [{"role": "user", "content": spoken}]
    several = [
        {"role": "user", "content": "hello"},
        {"role": "assistant", "content": "good morning"},
        {"role": "user", "content": "what is your name"},
        {"role": "assistant", "content": "one two"},
        *one,
    ]
    properties = {
        "city": {"type": "string", "description": "a name"},
        "unit": {"type": "string", "enum": ["C", "F"]},
        "days": {"type": "array", "items": {"type": "integer"}},
    }
    parameters = {"type": "object", "properties": properties, "required": ["city"]}
    weather = {"name": "weather", "description": "tells the weather", "parameters": parameters}
    clock = {"name": "clock", "description": "tells the time", "parameters": {"type": "object", "properties": {}}}
    tools = [{"type": "function", "function": tool} for tool in (weather, clock)]
    return {
        "a user turn": (one, None, None),
        "a system and a user turn": (one, "be kind", None),
        "several turns": (several, None, None),
        "several turns with a system turn": (several, "be kind", None),
        "a user turn with tools": (one, None, tools),
        "several turns with a system turn and tools": (several, "be kind", tools),
    }


def require_written(folder: Path, active: runtime.Active) -> None:
    """Check that the tokenizer of an exported model is there and builds prompts as in training.

    Args:
        folder: Exported model.
        active: The block in force; nothing is checked where its run has no template.

    Raises:
        WeightsError: The tokenizer cannot be read, which LLaMA-Factory only warns of, or builds other prompts.
    """
    record = active.facts.get(chat_form.KEY)
    if record is None:
        return
    if chat_form.fingerprint(_tokenizer(folder)) != record["fingerprint"]:
        raise WeightsError(f"{intended(folder)} was not written: its tokenizer lost the chat template of training.")


def write_into_merge(folder: Path, active: runtime.Active) -> None:
    """Make the tokenizer of a merged model build prompts as its members were trained with.

    Args:
        folder: Merged model, its card included.
        active: The block in force.

    Raises:
        ConfigError: The template is not the members', or cannot be written.
        WeightsError: The tokenizer cannot be read.
    """
    from llamafactory.data.template import get_template_and_fix_tokenizer

    if active.data_args.template is None and not chat_form.recorded(folder):
        return
    tokenizer = _tokenizer(folder)
    before = tokenizer.chat_template
    _prepare(get_template_and_fix_tokenizer.__wrapped__, tokenizer, active.data_args, active, [folder])
    if tokenizer.chat_template != before:
        tokenizer.save_pretrained(folder)
    if chat_form.KEY in active.facts:
        card.write(folder, {**card.read(folder), chat_form.KEY: active.facts[chat_form.KEY]})


def _tokenizer(folder: Path) -> Any:
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(folder)
    except Exception as error:
        text = " ".join(str(error).split())[:200]
        raise WeightsError(f"{intended(folder)} was not written: its tokenizer cannot be read: {text}") from error
