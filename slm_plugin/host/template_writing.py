"""A template of LLaMA-Factory written as the chat template of a tokenizer, thoughts and tools included.

LLaMA-Factory's own writer leaves out tools, function calls and the empty thought of reasoning templates.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from slm_plugin.host.template_tools import literal, refusal, write_calls, write_tools


def write_jinja(template: Any, tokenizer: Any, in_history: bool) -> str:
    """Return a chat template that renders the prompts of a template of LLaMA-Factory.

    A prompt is the text in front of an answer: ``prefix, system + tools, turn, answer, turn, ...``. Reasoning
    templates end it in an empty thought, unless they were trained with ``enable_thinking: true``; a caller who
    passes ``enable_thinking=True`` receives it without.

    Args:
        template: LLaMA-Factory's template, ``enable_thinking`` set as in training.
        tokenizer: The tokenizer that the text is for.
        in_history: Whether earlier answers without a thought have an empty one, as in training on every turn.

    Raises:
        ValueError: A turn holds more than its content.
    """
    fuses, thought = fuses_system(template), empty_thought(template)

    def slots(formatter: Any, content: str = "content") -> str:
        return _expression(formatter.slots, tokenizer, content)

    text = (
        "{% set ns = namespace(tools='', calls='', names=[]) %}"
        "{% if messages[0]['role'] == 'system' %}{% set system_message = messages[0]['content'] %}"
        "{% set loop_messages = messages[1:] %}"
        "{% else %}{% set system_message = '' %}{% set loop_messages = messages %}{% endif %}"
    )
    if template.default_system:
        default = literal(template.default_system)
        text += "{% if not system_message %}{% set system_message = " + default + " %}{% endif %}"
    text += "{% if tools %}" + write_tools(template.format_tools) + "{% endif %}"
    if prefix := slots(template.format_prefix):
        text += "{{ " + prefix + " }}"
    user = slots(template.format_user)
    if fuses:
        head = _expression(template.format_system.slots[:1], tokenizer, "system_message + ns.tools")
        text += "{% set head = (" + head + ") if system_message or tools else '' %}"
        user = slots(template.format_user, "(head if loop.first else '') + content")
    else:
        system = slots(template.format_system, "system_message + ns.tools")
        text += "{% if system_message or tools %}{{ " + system + " }}{% endif %}"
    before_answer = _thought_in_history(template, thought, in_history)
    calls = write_calls(template.format_function)
    if calls is None:
        calls = refusal("function calls of this template cannot be written as a chat template.")
    else:
        other = refusal("a turn with function calls has no other content.")
        head = "{{ " + literal(thought) + " }}" if thought and in_history else ""
        calls = "{% if content %}" + other + "{% endif %}" + calls + head
        calls += "{{ " + slots(template.format_function, "ns.calls") + " }}"
    text += (
        "{% for message in loop_messages %}{% set content = message['content'] %}"
        "{% if message['role'] == 'user' %}{{ " + user + " }}"
        "{% elif message['role'] in ['tool', 'observation'] %}{{ " + slots(template.format_observation) + " }}"
        "{% elif message['role'] == 'assistant' and message['tool_calls'] %}"
        + calls
        + "{% elif message['role'] == 'assistant' %}"
        + before_answer
        + "{{ "
        + slots(template.format_assistant)
        + " }}"
        "{% else %}"
        + refusal("a message is of the role system (the first one only), user, assistant or tool.")
        + "{% endif %}{% endfor %}"
    )
    if thought and not template.enable_thinking:
        text += (
            "{% if add_generation_prompt and not (enable_thinking is defined and enable_thinking) %}"
            "{{ " + literal(thought) + " }}{% endif %}"
        )
    return text


def fuses_system(template: Any) -> bool:
    """Tell whether a system text is part of the first user turn."""
    from llamafactory.data.template import Llama2Template

    return isinstance(template, Llama2Template)


def empty_thought(template: Any) -> str:
    """Return the empty thought of a reasoning template; empty for one without thoughts."""
    from llamafactory.data.template import ReasoningTemplate

    return str(template.add_thought()) if isinstance(template, ReasoningTemplate) else ""


def _thought_in_history(template: Any, thought: str, in_history: bool) -> str:
    """Return what training does to the thought of an earlier answer: removed, left, or an empty one put in front."""
    if not thought:
        return ""
    begin, end = template.thought_words
    text = ""
    if template.enable_thinking is False or not in_history:
        rest = f"content.split({literal(begin)}, 1)"
        text += (
            "{% if " + literal(begin) + " in content and " + literal(end) + " in " + rest + "[1] %}"
            "{% set content = " + rest + "[0] + " + rest + "[1].split(" + literal(end) + ", 1)[1] %}{% endif %}"
            "{% set content = content.lstrip('\\n') %}"
        )
    if in_history:
        lacking = f"{literal(begin.strip())} not in content and {literal(end.strip())} not in content"
        text += "{% if " + lacking + " %}{{ " + literal(thought) + " }}{% endif %}"
    return text


def _expression(slots: Sequence[Any], tokenizer: Any, content: str) -> str:
    """Return an expression for the slots of a formatter, ``{{content}}`` in them as the expression ``content``."""
    parts: list[str] = []
    for slot in slots:
        if isinstance(slot, dict):
            parts.append(literal(slot["token"]))
        elif isinstance(slot, set):
            # the token itself, because the tokenizer's variables of these names may be changed later
            name = next((name for name in ("bos_token", "eos_token") if name in slot), None)
            if name is not None and getattr(tokenizer, name) is not None:
                parts.append(literal(str(getattr(tokenizer, name))))
        else:
            if "{{idx}}" in slot or "{{name}}" in slot:
                raise ValueError(f"a turn holds more than its content: {slot!r}")
            before, mark, behind = slot.partition("{{content}}")
            parts += [literal(before)] if before else []
            parts += [f"({content})"] if mark else []
            parts += [literal(behind)] if behind else []
    return " + ".join(parts)
