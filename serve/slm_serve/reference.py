"""Reference pages: the HTTP API, from the application's OpenAPI document, and the plugin's variables."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, cast

from slm_plugin.docstrings import markdown
from slm_plugin.reference_code import NOTE
from slm_serve.app import create_routes
from slm_serve.endpoint_options import REFUSED, EndpointOptions, variable
from slm_serve.engine import PLUGIN
from slm_serve.ops.settings import Settings
from slm_serve.protocol import UNSUPPORTED
from slm_serve.protocol_audio import TRANSCRIPTION_UNSUPPORTED
from slm_serve.voice import OPENAI_VOICES

MEDIA = ("application/json", "multipart/form-data")


def http_page() -> str:
    """Return the page of every route, its request and its answer."""
    document = create_routes(Settings()).openapi()
    parts = [
        f"# HTTP API\n\n{NOTE}`slm serve` answers these requests; the shapes are those of OpenAI's API. What that API"
        ' does not have is marked "Ours"; where nothing is said, a name means what it means there. Unknown parameters'
        " are refused with status 400 and the nearest name. With `stream: true` the answer comes as"
        " `chat.completion.chunk` events, ended by `data: [DONE]`.\n"
    ]
    for path, methods in document["paths"].items():
        for method, route in methods.items():
            parts += _route(document, f"{method.upper()} {path}", route)
    voices = ", ".join(f"`{name}`" for name in OPENAI_VOICES)
    parts += [
        "## WebSocket /v1/realtime\n\nOpenAI's realtime protocol; a WebSocket is not part of the OpenAPI document.\n",
        "## Parameters that are refused\n\nKnown from OpenAI's API, not supported here unless they ask for nothing.\n",
        f"Chat: {_names(UNSUPPORTED)}.\n",
        f"Transcriptions: {_names(TRANSCRIPTION_UNSUPPORTED)}.\n",
        f"## Voices\n\n{voices} are the codec's default speaker; a codec with speakers of its own offers those by"
        " name, too.\n",
        "## Errors\n\nEvery error has the body"
        ' `{"error": {"message": ..., "type": ..., "param": ..., "code": ...}}`. A request that cannot be answered as'
        " it stands is status 400 (401 for a wrong key, 404 for an unknown model, 413 for a body that is too large),"
        " an engine that is away 503, and 500 is a mistake of the server.\n",
    ]
    return "\n".join(parts)


def plugin_page() -> str:
    """Return the page of the endpoint plugin's variables."""
    schema = EndpointOptions.model_json_schema()
    schema["properties"] = {variable(name): field for name, field in schema["properties"].items()}
    schema["required"] = [variable(name) for name in schema["required"]]
    refused = "\n".join(f"| `{variable(name)}` | {reason} |" for name, reason in REFUSED.items())
    return (
        f"# Variables of the endpoint plugin\n\n{NOTE}[The plugin](../how-to/operate.md#in-vllms-own-process) reads"
        f" them where vLLM is started with `VLLM_PLUGINS={PLUGIN}`; they have the names of the options of `slm serve`."
        f" An unknown variable of such a name is refused.\n\n{_table(schema)}\n\n"
        "## Options of `slm serve` that are refused\n\n"
        f"| variable | what to do instead |\n|---|---|\n{refused}\n"
    )


def _names(parameters: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in parameters)


def _route(document: Mapping[str, Any], title: str, route: Mapping[str, Any]) -> Iterator[str]:
    yield f"## {title}\n\n{markdown(route.get('description', route.get('summary', '')))}\n"
    bodies = {"Request": route.get("requestBody", {}), "Answer": route.get("responses", {}).get("200", {})}
    for noun, body in bodies.items():
        content = body.get("content", {})
        schema: Mapping[str, Any] = next((content[media].get("schema", {}) for media in MEDIA if media in content), {})
        schema = _resolved(document, schema)
        if "properties" not in schema:
            continue
        yield f"### {noun}: {schema['title']}\n\n{_table(schema)}\n"
        for nested in _nested(document, schema):
            yield f"#### {nested['title']}\n\n{markdown(nested.get('description', ''))}\n\n{_table(nested)}\n"


def _resolved(document: Mapping[str, Any], schema: Mapping[str, Any]) -> Mapping[str, Any]:
    """Follow a reference within the document."""
    if "$ref" not in schema:
        return schema
    found: Any = document
    for step in schema["$ref"].removeprefix("#/").split("/"):
        found = found[step.replace("~1", "/").replace("~0", "~")]
    return cast(Mapping[str, Any], found)


def _references(schema: Any) -> Iterator[Mapping[str, Any]]:
    """Yield every reference in the properties of a schema, in order."""
    if isinstance(schema, dict):
        if "$ref" in schema:
            yield schema
        for key, value in schema.items():
            if key not in ("$defs", "mapping"):
                yield from _references(value)
    elif isinstance(schema, list):
        for item in schema:
            yield from _references(item)


def _nested(document: Mapping[str, Any], schema: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the models that a schema leads to, each once, in order of appearance."""
    found: dict[str, Mapping[str, Any]] = {}
    waiting = [_resolved(document, reference) for reference in _references(dict(schema))]
    while waiting:
        model = waiting.pop(0)
        if model["title"] not in found and "properties" in model:
            found[model["title"]] = model
            waiting += [_resolved(document, reference) for reference in _references(dict(model))]
    return list(found.values())


def _table(schema: Mapping[str, Any]) -> str:
    lines = ["| name | value | default | meaning |", "|---|---|---|---|"]
    for name, field in schema["properties"].items():
        required = name in schema.get("required", ())
        default = "required" if required else f"`{field['default']}`" if _has_default(field) else ""
        meaning = " ".join(markdown(field.get("description", "")).split())
        cells = [f"`{name}`", _value(field), default, meaning]
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines)


def _has_default(field: Mapping[str, Any]) -> bool:
    return field.get("default") not in (None, [], {}) and "const" not in field


def _value(field: Mapping[str, Any]) -> str:
    if "$ref" in field:
        return f"`{field['$ref'].split('/')[-1]}`"
    choices = field.get("anyOf", field.get("oneOf"))
    if choices:
        return " or ".join(_value(choice) for choice in choices if choice.get("type") != "null")
    if "const" in field:
        return f"`{field['const']}`"
    if "enum" in field:
        return " or ".join(f"`{choice}`" for choice in field["enum"])
    words = {"string": "text", "integer": "whole number", "boolean": "true or false", "object": "mapping"}
    kind = field.get("type", "anything")
    if kind == "array":
        return f"list of {_value(field.get('items', {}))}"
    limits = [
        f"{words_} {field[key]:g}" for key, words_ in _LIMITS.items() if key in field and abs(field[key]) < 2**62
    ]
    return ", ".join([words.get(kind, kind), *limits])


_LIMITS = {"minimum": "at least", "exclusiveMinimum": "above", "maximum": "at most", "exclusiveMaximum": "below"}
