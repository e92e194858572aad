"""Whether a template of LLaMA-Factory belongs to a model: its end of a turn, and the model's own chat template."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from slm_plugin.generation.thought import THOUGHTS
from slm_plugin.host.template_writing import empty_thought

_USER, _ANSWER, _NEXT = "Hello", "Fine", "Why"
_SHOWN = 6
"""Most names of templates in a message."""


def end_of_turn(template: Any, tokenizer: Any) -> str | None:
    """Return the text that ends an answer in training; None if nothing does.

    Args:
        template: LLaMA-Factory's template.
        tokenizer: The model's tokenizer, before LLaMA-Factory changed it.
    """
    behind: list[Any] = []
    for slot in template.format_assistant.slots:
        if isinstance(slot, str):
            before, mark, rest = slot.partition("{{content}}")
            behind = [rest] if mark else [*behind, before]
        else:
            behind.append(slot)
    for slot in behind:
        if isinstance(slot, set):
            return _end_of_sequence(template, tokenizer)
        if isinstance(slot, dict):
            return str(slot["token"])
        if slot.strip():
            text = slot.strip()
            return next((word for word in template.stop_words if text.startswith(word)), text)
    return _end_of_sequence(template, tokenizer) if template.efficient_eos else None


def _end_of_sequence(template: Any, tokenizer: Any) -> str | None:
    if template.replace_eos and template.stop_words:
        return str(template.stop_words[0])
    return tokenizer.eos_token


def problem_with_end(template: Any, tokenizer: Any, n_known: int | None) -> str | None:
    """Return what is wrong with the end of a turn; None if it is one token that the model knows.

    Args:
        template: LLaMA-Factory's template.
        tokenizer: The model's tokenizer, before LLaMA-Factory changed it.
        n_known: Rows of the model's embeddings; None if that is not known.
    """
    end = end_of_turn(template, tokenizer)
    if end is None:
        return "has no token that ends an answer, so answers would never end"
    ids = tokenizer.encode(end, add_special_tokens=False)
    if len(ids) != 1 or (ids[0] == tokenizer.unk_token_id and end != tokenizer.unk_token):
        return f"ends a turn with {end!r}, which is no single token of this model's tokenizer"
    if n_known is not None and ids[0] >= n_known:
        return f"ends a turn with {end!r}, token {ids[0]}, of which the model knows {n_known} only"
    return None


def problem_with_answer(template: Any) -> str | None:
    """Return what is wrong with the beginning of an answer; None if an answer is its text alone."""
    first = template.format_assistant.slots[0]
    head = first.partition("{{content}}")[0].strip() if isinstance(first, str) else ""
    return f"puts {head!r} into every answer, where speech stages need the answer alone" if head else None


def problem_with_form(template: Any, tokenizer: Any, chat_template: str | None) -> str | None:
    """Return how the turns of a template differ from those of a model's own chat template; None if they agree.

    What a model's own chat template puts in front of the first user turn, such as a date, may differ: that is the
    system turn. An empty or opened thought at the end of the prompt may differ as well.
    """
    if not chat_template:
        return None
    one = [{"role": "user", "content": _USER}]
    several = [*one, {"role": "assistant", "content": _ANSWER}, {"role": "user", "content": _NEXT}]
    first, second = (_text(template.format_user.slots, tokenizer, content) for content in (_USER, _NEXT))
    answer = _text(template.format_assistant.slots, tokenizer, _ANSWER)
    if empty_thought(template):
        # families write the empty thought of earlier answers in their own ways
        answer = answer[answer.index(_ANSWER) :]
        turns = [(one, first), (several, answer + second)]
    else:
        turns = [(one, first), (several, first + answer + second)]
    prefix = _text(template.format_prefix.slots, tokenizer, "")
    begin = tokenizer.bos_token
    for chat, expected in turns:
        try:
            own = str(
                tokenizer.apply_chat_template(
                    chat, chat_template=chat_template, tokenize=False, add_generation_prompt=True
                )
            )
        except Exception as error:
            return f"cannot be compared with the model's own chat template, which fails: {_line(error)}"
        before = _before(own, expected)
        if before is None:
            return f"renders {_quoted(expected)}, but the model's own chat template renders {_quoted(own)}"
        if prefix not in before or (begin and not prefix and before.startswith(begin)):
            return f"begins a prompt with {_quoted(prefix)}, but the model's own chat template with {_quoted(before)}"
    return None


def fitting(templates: dict[str, Any], tokenizer: Any, chat_template: str | None, n_known: int | None) -> list[str]:
    """Return the names of the templates that belong to a model, those whose system turn agrees as well first."""
    found = [
        (not _same_system(template, tokenizer, chat_template), bool(empty_thought(template)), name)
        for name, template in templates.items()
        if problem_with_end(template, tokenizer, n_known) is None
        and problem_with_answer(template) is None
        and problem_with_form(template, tokenizer, chat_template) is None
    ]
    return [name for _, _, name in sorted(found)]


def advice(names: Sequence[str], has_own: bool) -> str:
    """Return the part of a refusal that says which templates fit."""
    if not names:
        return "No template of LLaMA-Factory fits; register one in a plugin of LLaMA-Factory"
    if not has_own:
        # without a chat template nothing tells families with the same tokens apart
        return f"Templates whose end of a turn it has: {_listed(names)}"
    return f"Templates that fit: {_listed(names)}"


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")


def _same_system(template: Any, tokenizer: Any, chat_template: str | None) -> bool:
    if not chat_template:
        return True
    prefix = _text(template.format_prefix.slots, tokenizer, "")
    if template.default_system:
        prefix += _text(template.format_system.slots, tokenizer, template.default_system)
    chat = [{"role": "user", "content": _USER}]
    own = tokenizer.apply_chat_template(chat, chat_template=chat_template, tokenize=False, add_generation_prompt=True)
    return _before(str(own), _text(template.format_user.slots, tokenizer, _USER)) == prefix


def _before(own: str, expected: str) -> str | None:
    """Return what stands in front of ``expected`` at the end of a prompt, a thought behind it left out."""
    if own.endswith(expected):
        return own.removesuffix(expected)
    for begin, end in THOUGHTS:
        at = own.rfind(begin)
        empty = own[at:].removeprefix(begin).strip() if at >= 0 else ""
        if at >= 0 and empty in ("", end) and own[:at].rstrip("\n").endswith(expected.rstrip("\n")):
            rest = own[:at]
            return (rest if rest.endswith(expected) else rest.rstrip("\n")).removesuffix(
                expected if rest.endswith(expected) else expected.rstrip("\n")
            )
    return None


def _text(slots: Sequence[Any], tokenizer: Any, content: str) -> str:
    parts = []
    for slot in slots:
        if isinstance(slot, dict):
            parts.append(slot["token"])
        elif isinstance(slot, set):
            name = next((name for name in ("bos_token", "eos_token") if name in slot), None)
            parts.append((getattr(tokenizer, name) or "") if name else "")
        else:
            parts.append(slot.replace("{{content}}", content, 1))
    return "".join(parts)


def _quoted(text: str) -> str:
    return repr(text if len(text) <= 160 else f"...{text[-160:]}")


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
