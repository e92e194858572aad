"""Whether a template of LLaMA-Factory belongs to a model: its end of a turn, and the model's own chat template."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from slm_plugin.generation.thought import THOUGHTS
from slm_plugin.host.template_writing import empty_thought, fuses_system

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


@dataclass(frozen=True)
class OwnForm:
    """What a model's own chat template renders.

    Attributes:
        one: Prompt for one user turn; None if the model has no chat template.
        several: Prompt for the second of two user turns.
        failure: Why it cannot render; None if it can.
    """

    one: str | None = None
    several: str | None = None
    failure: str | None = None

    @classmethod
    def of(cls, tokenizer: Any) -> OwnForm:
        """Render the conversations that templates are compared by."""
        if not tokenizer.chat_template:
            return cls()
        one = [{"role": "user", "content": _USER}]
        several = [*one, {"role": "assistant", "content": _ANSWER}, {"role": "user", "content": _NEXT}]
        try:
            found = [
                str(tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True))
                for chat in (one, several)
            ]
        except Exception as error:
            return cls(failure=" ".join(str(error).split())[:200])
        return cls(*found)


def problem_with_form(template: Any, tokenizer: Any, own: OwnForm) -> str | None:
    """Return how the turns of a template differ from those of a model's own chat template; None if they agree.

    The text of a system turn that the model's own chat template adds, such as a date, may differ, and so may an empty
    or opened thought at the end of the prompt.
    """
    if own.failure is not None:
        return f"cannot be compared with the model's own chat template, which fails: {own.failure}"
    if own.one is None or own.several is None:
        return None
    first, second = (_text(template.format_user.slots, tokenizer, content) for content in (_USER, _NEXT))
    answer = _text(template.format_assistant.slots, tokenizer, _ANSWER)
    # families write the empty thought of earlier answers in their own ways
    head = "" if empty_thought(template) else first
    turns = head + answer[answer.index(_ANSWER) if not head else 0 :] + second
    prefix = _text(template.format_prefix.slots, tokenizer, "")
    # families exist whose turns begin with the token that they call the beginning of a text
    begin = tokenizer.bos_token if tokenizer.bos_token and tokenizer.bos_token not in first else None
    for rendered, expected in ((own.one, first), (own.several, turns)):
        before = _before(rendered, expected)
        if before is None:
            return f"renders {_quoted(expected)}, but the model's own chat template renders {_quoted(rendered)}"
        _, _, system = before.partition(prefix) if prefix else ("", "", before)
        begins = prefix in before and not (begin and not prefix and system.startswith(begin))
        if expected == first and begins and system:
            # what follows the beginning is a system turn, in the form of the template
            opening = _text(template.format_system.slots, tokenizer, "\0").partition("\0")[0]
            begins = not fuses_system(template) and system.startswith(opening)
        if not begins:
            return f"begins a prompt with {_quoted(prefix)}, but the model's own chat template with {_quoted(before)}"
    return None


def fitting(templates: dict[str, Any], tokenizer: Any, n_known: int | None) -> list[str]:
    """Return the names of the templates that belong to a model.

    Those for text come before those for images, and those whose system turn is nearer before others.

    Args:
        templates: LLaMA-Factory's by name.
        tokenizer: The model's, with its own chat template.
        n_known: Rows of the model's embeddings; None if that is not known.
    """
    own = OwnForm.of(tokenizer)
    found = [
        (_needs_processor(template), _distance_of_system(template, tokenizer, own), name)
        for name, template in templates.items()
        if problem_with_end(template, tokenizer, n_known) is None
        and problem_with_answer(template) is None
        and problem_with_form(template, tokenizer, own) is None
    ]
    return [name for _, _, name in sorted(found)]


def _needs_processor(template: Any) -> bool:
    """Tell whether LLaMA-Factory refuses a template on a model of text alone."""
    plugin = template.mm_plugin
    return any(getattr(plugin, f"{kind}_token", None) for kind in ("image", "video", "audio"))


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


def _distance_of_system(template: Any, tokenizer: Any, own: OwnForm) -> float:
    """Return how far a template's default system turn is from the model's own: 0 for the same text, 1 at most."""
    if own.one is None:
        return 0.0
    ours = _text(template.format_prefix.slots, tokenizer, "")
    if template.default_system:
        ours += _text(template.format_system.slots, tokenizer, template.default_system)
    before = _before(own.one, _text(template.format_user.slots, tokenizer, _USER)) or ""
    return 1 - difflib.SequenceMatcher(None, ours, before, autojunk=False).ratio()


def _before(own: str, expected: str) -> str | None:
    """Return what stands in front of ``expected`` at the end of a prompt, a thought behind it left out."""
    if own.endswith(expected):
        return own.removesuffix(expected)
    for begin, end in THOUGHTS:
        head, thought, rest = own.rpartition(begin)
        if thought and rest.strip() in ("", end):
            for text in (head, head.rstrip("\n")):
                if text.endswith(expected):
                    return text.removesuffix(expected)
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
