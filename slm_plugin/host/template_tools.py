"""How LLaMA-Factory writes definitions of tools and calls of functions into a prompt, as parts of a chat template.

LLaMA-Factory writes them in Python, one function per format. What they write around the JSON of each tool or call is
found by calling them with tools of known content; a format that is no sequence of JSON texts is not written.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, NamedTuple

_DATE = "%d %b %Y"
_DEFAULT_PARAMETER = (
    "{% for name, parameter in inner['parameters']['properties'].items() %}"
    "{% set ns.tools = ns.tools + '  - ' + name + ' (' + (parameter['type'] or '')"
    " + (', required' if name in (inner['parameters']['required'] or []) else '') + '): '"
    " + (parameter['description'] or '')"
    " + (', should be one of [' + parameter['enum'] | join(', ') + ']' if parameter['enum'] else '')"
    " + (', where each item should be ' + (parameter['items']['type'] or '') if parameter['items'] is mapping and"
    " parameter['items'] else '') + '\\n' %}{% endfor %}"
)
"""One line of LLaMA-Factory's ``tool_format: default``; ``items`` of a mapping without that key is its method."""


class Call(NamedTuple):
    """A call of a function, as LLaMA-Factory passes it."""

    name: str
    arguments: str


def literal(text: str) -> str:
    """Return a text as a string of Jinja's."""
    escaped = text.replace("\\", "\\\\").replace("'", "\\'").replace("\n", "\\n").replace("\r", "\\r")
    return f"'{escaped}'"


def refusal(text: str) -> str:
    """Return a statement that refuses to render."""
    return "{{ raise_exception(" + literal(text) + ") }}"


def write_tools(formatter: Any) -> str:
    """Return statements that set ``ns.tools`` to the text of ``tools``, or refuse a format that cannot be written."""
    render = _renderer(formatter)
    try:
        if formatter.tool_format == "default":
            return _default_tools(render)
        for kind in ("inner", "wrapped", "tool"):
            for indent in (None, 4):
                found = _json_tools(render, kind, indent)
                if found is not None:
                    return found
    except (ValueError, KeyError, TypeError, IndexError):
        pass
    return refusal(
        f"definitions of tools in the format {formatter.tool_format!r} cannot be written as a chat template."
    )


def write_calls(formatter: Any) -> str | None:
    """Return statements that set ``ns.calls`` to the text of the ``tool_calls`` of a message; None if not possible."""
    utilities = getattr(formatter, "tool_utils", None)
    if utilities is None:
        return None
    calls = [
        Call(f"slm_probe_{letter}", json.dumps({"key": {letter: [1, "é"]}}, ensure_ascii=False)) for letter in "xy"
    ]
    try:
        one = utilities.function_formatter(calls[:1])
        head, rest = _cut(one, calls[0].name)
        middle, tail = _cut(rest, calls[0].arguments)
    except ValueError:
        return None
    item = f"call['name'] + {literal(middle)} + (call['arguments'] if call['arguments'] is string"
    item += " else call['arguments'] | tojson)"
    several = refusal("this template knows one function call in a turn only.")
    try:
        two = utilities.function_formatter(calls)
        many_head, rest = _cut(two, calls[0].name + middle + calls[0].arguments)
        between, many_tail = _cut(rest, calls[1].name + middle + calls[1].arguments)
        several = (
            "{% set ns.calls = ns.calls + ("
            + literal(many_head)
            + " if loop.first else "
            + literal(between)
            + ") + "
            + item
            + " + ("
            + literal(many_tail)
            + " if loop.last else '') %}"
        )
    except ValueError:
        pass
    single = "{% set ns.calls = " + literal(head) + " + " + item + " + " + literal(tail) + " %}"
    return (
        "{% set ns.calls = '' %}{% for entry in message['tool_calls'] %}"
        "{% set call = entry['function'] if entry['function'] else entry %}"
        "{% if message['tool_calls'] | length == 1 %}" + single + "{% else %}" + several + "{% endif %}{% endfor %}"
    )


def _probe(letter: str) -> dict[str, Any]:
    properties = {"key": {"type": "string", "description": f"about {letter}"}}
    parameters = {"type": "object", "properties": properties, "required": ["key"]}
    return {"name": f"slm_probe_{letter}", "description": f"does {letter}", "parameters": parameters}


def _renderer(formatter: Any) -> Callable[[Sequence[Any]], str]:
    def render(tools: Sequence[Any]) -> str:
        return str(formatter.apply(content=json.dumps(tools, ensure_ascii=False))[0])

    return render


def _cut(text: str, part: str) -> tuple[str, str]:
    before, found, behind = text.partition(part)
    if not found:
        raise ValueError(part)
    return before, behind


def _json_tools(render: Callable[[Sequence[Any]], str], kind: str, indent: int | None) -> str | None:
    """Return statements for a format that writes each tool as JSON; None if this is not its form.

    Args:
        render: LLaMA-Factory's.
        kind: What is written: the function itself, the function in its wrapper, or the tool as it was given.
        indent: Blanks of an indented line; None for JSON in one line.
    """
    plain = [_probe(letter) for letter in "xy"]
    wrapped = [{"type": "function", "function": tool} for tool in plain]
    written = {"inner": (plain, plain), "wrapped": (wrapped, wrapped), "tool": (plain, wrapped)}[kind]
    parts = set()
    for given, shown in zip((plain, wrapped), written, strict=True):
        texts = [json.dumps(tool, ensure_ascii=False, indent=indent) for tool in shown]
        try:
            head, tail = _cut(render(given[:1]), texts[0])
            many_head, rest = _cut(render(given), texts[0])
            between, many_tail = _cut(rest, texts[1])
        except ValueError:
            return None
        if (head, tail) != (many_head, many_tail):
            return None
        parts.add((head, between, tail))
    if len(parts) != 1:
        return None
    ((head, between, tail),) = parts
    first, further = (_with_name(head, plain[0]["name"]), _with_name(between, plain[1]["name"]))
    json_text = f"{kind} | tojson" + (f"(indent={indent})" if indent else "")
    return _each(
        "{% set ns.tools = ns.tools + (" + first + " if loop.first else " + further + ") + (" + json_text + ") %}"
    ) + ("{% set ns.tools = ns.tools + " + _with_date(tail) + " %}")


def _default_tools(render: Callable[[Sequence[Any]], str]) -> str:
    tool = _probe("x")
    text = "> Tool Name: slm_probe_x\nTool Description: does x\nTool Args:\n  - key (string, required): about x\n\n"
    head, rest = _cut(render([tool]), text)
    middle, tail = _cut(rest, tool["name"])
    return (
        "{% set ns.tools = "
        + literal(head)
        + " %}{% set ns.names = [] %}"
        + _each(
            "{% set ns.tools = ns.tools + '> Tool Name: ' + inner['name'] + '\\nTool Description: '"
            " + (inner['description'] or '') + '\\nTool Args:\\n' %}"
            + _DEFAULT_PARAMETER
            + "{% set ns.tools = ns.tools + '\\n' %}{% set ns.names = ns.names + [inner['name']] %}"
        )
        + "{% set ns.tools = ns.tools + "
        + literal(middle)
        + " + ns.names | join(', ') + "
        + literal(tail)
        + " %}"
    )


def _each(body: str) -> str:
    return (
        "{% for tool in tools %}{% set inner = tool['function'] if tool['type'] == 'function' else tool %}"
        "{% set wrapped = tool if tool['type'] == 'function' else {'type': 'function', 'function': tool} %}"
        + body
        + "{% endfor %}"
    )


def _with_name(text: str, name: str) -> str:
    return " + inner['name'] + ".join(_with_date(part) for part in text.split(name))


def _with_date(text: str) -> str:
    """Return a text as an expression in which today's date is the date of the day it is rendered."""
    today = datetime.now().strftime(_DATE)
    return f" + strftime_now({literal(_DATE)}) + ".join(literal(part) for part in text.split(today))
