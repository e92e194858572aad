"""Options of mergekit's methods, checked before any work: their types, and the values the methods are defined for.

A setting is a value, a gradient over the layers (a list of values), or a list of ``{filter, value}``.
"""

from __future__ import annotations

import functools
import math
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, Field, create_model

from slm_plugin.strict import Strict

RANGES: dict[str, tuple[float, float]] = {
    "density": (0, 1),
    "gamma": (0, 1),
    "select_topk": (0, 1),
    "epsilon": (0, math.inf),
    "eps": (0, math.inf),
    "tol": (0, math.inf),
    "max_iter": (1, math.inf),
    "r": (0, math.inf),
    "alpha": (0, math.inf),
    "slerp.t": (0, 1),
    "nearswap.t": (0, math.inf),
}
"""Least and largest value by option, or by method and option; mergekit itself takes any number."""


@functools.cache
def options_of(name: str) -> tuple[type[BaseModel], type[BaseModel]]:
    """Return models of the merge-wide options and of those of each model, from mergekit's specification."""
    spec = spec_of(name)
    shared = {parameter.name: _field(name, parameter) for parameter in spec.shared_parameters}
    per_model = {parameter.name: _field(name, parameter) for parameter in spec.input_parameters}
    return (
        create_model(f"{name}_options", __base__=Strict, **_safe(shared)),
        create_model(f"{name}_member_options", __base__=Strict, **_safe(per_model)),
    )


def spec_of(name: str) -> Any:
    """Return mergekit's specification of a method."""
    from mergekit import merge_methods

    return merge_methods.get(name).spec


def plain(setting: Any) -> float | None:
    """Return a setting that is one number for all tensors; None for all others."""
    return float(setting) if isinstance(setting, int | float) and not isinstance(setting, bool) else None


def _safe(fields: dict[str, Any]) -> dict[str, Any]:
    """Rename what Python has a word for; the key in the configuration stays."""
    return {f"{name}_" if name == "lambda" else name: field for name, field in fields.items()}


def _field(method: str, parameter: Any) -> tuple[Any, Any]:
    default = ... if parameter.required else parameter.default
    alias = {"alias": parameter.name} if parameter.name == "lambda" else {}
    kind = "float" if parameter.default is None else getattr(parameter.value_type, "__name__", "")
    everywhere = (-math.inf, math.inf)
    low, high = RANGES.get(f"{method}.{parameter.name}", RANGES.get(parameter.name, everywhere))

    def check(value: Any) -> Any:
        for scalar in _scalars(value):
            try:
                parsed = parameter.validate(scalar)
            except ValueError:
                parsed = None
            if parsed is None or (kind == "bool") != isinstance(scalar, bool):
                raise ValueError(f"must be of type {kind}, or a list or filters of such, got {scalar!r}.")
            if isinstance(parsed, float) and not math.isfinite(parsed):
                raise ValueError(f"must be finite, got {scalar!r}.")
            if not low <= parsed <= high:
                wanted = f"at least {low:g}" if high == math.inf else f"from {low:g} to {high:g}"
                raise ValueError(f"must be {wanted}, got {scalar!r}.")
        if parameter.required and _leaves_tensors_out(value):
            raise ValueError("has only filters: end with {value: ...} for the tensors that no filter names.")
        return value

    return Annotated[Any, AfterValidator(check)], Field(default=default, **alias)


def _scalars(setting: Any) -> list[Any]:
    """Return the single values of a setting."""
    if isinstance(setting, list):
        if not setting:
            raise ValueError("must not be an empty list.")
        if len({isinstance(part, dict) for part in setting}) > 1:
            raise ValueError("mixes values and filters; write {value: ...} for what holds everywhere else.")
        return [scalar for part in setting for scalar in _scalars(part)]
    if isinstance(setting, dict):
        named = setting.get("filter")
        if (
            "value" not in setting
            or set(setting) - {"value", "filter"}
            or not (named is None or isinstance(named, str))
        ):
            raise ValueError(f"a filter is {{filter: part of a tensor's name, value: ...}}, got {setting!r}.")
        return _scalars(setting["value"])
    return [setting]


def _leaves_tensors_out(setting: Any) -> bool:
    """Say whether a setting is made of filters and none of them is for all tensors."""
    filters = setting if isinstance(setting, list) else [setting]
    if not all(isinstance(part, dict) for part in filters):
        return False
    return not any(part.get("filter") in (None, "*") for part in filters)
