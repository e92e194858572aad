"""Parse mappings strictly into pydantic models, with every problem reported at once in our words."""

from __future__ import annotations

import types
import typing
from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from slm_plugin.errors import ConfigError, Problem, suggest


class Strict(BaseModel):
    """Base of every configuration model: frozen, no unknown keys, no silent conversions."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, use_attribute_docstrings=True)


Model = TypeVar("Model", bound=BaseModel)


def parse(model: type[Model], raw: Any, where: str) -> Model:
    """Validate ``raw`` against a model.

    Args:
        model: The pydantic model to build.
        raw: What the YAML file or command line holds.
        where: Prefix of every problem, such as ``asr.yaml: slm``.

    Raises:
        ConfigError: Lists every problem found.
    """
    if not isinstance(raw, Mapping):
        raise ConfigError([Problem(where, f"must be a mapping of keys, got {_show(raw)}.")])
    try:
        return model.model_validate(dict(raw))
    except ValidationError as error:
        raise ConfigError([_problem(model, detail, where) for detail in error.errors()]) from None


def _problem(model: type[BaseModel], detail: Mapping[str, Any], where: str) -> Problem:
    path = [part for part in detail["loc"] if not (isinstance(part, str) and part.startswith("function-"))]
    spot = where + "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
    kind, value = detail["type"], detail.get("input")
    if kind == "extra_forbidden":
        parent = _model_at(model, path[:-1])
        known = list(parent.model_fields) if parent else []
        return Problem(spot, f"unknown key. {suggest(path[-1], known, 'Keys')}")
    if kind == "missing":
        return Problem(spot, "is required.")
    if kind == "literal_error":
        choices = [part.strip(" '") for part in detail["ctx"]["expected"].replace(" or ", ", ").split(",")]
        return Problem(spot, f"{_show(value)} is not accepted. {suggest(value, choices, 'Accepted')}")
    message = detail["msg"].removeprefix("Value error, ")
    message = message[0].lower() + message[1:]
    return Problem(spot, f"{message.rstrip('.')}, got {_show(value)}." if kind != "value_error" else message)


def _model_at(model: type[BaseModel], path: list[Any]) -> type[BaseModel] | None:
    """Return the model that a key path leads to, so that its keys can be listed."""
    current: Any = model
    for part in path:
        models = _models_in(current)
        if isinstance(part, int):
            continue
        found = [m.model_fields[part].annotation for m in models if part in m.model_fields]
        if not found:
            return models[0] if models else None
        current = found[0]
    models = _models_in(current)
    return models[0] if models else None


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    if typing.get_origin(annotation) in (typing.Union, types.UnionType, list, tuple, dict):
        return [model for argument in typing.get_args(annotation) for model in _models_in(argument)]
    return []


def _show(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
