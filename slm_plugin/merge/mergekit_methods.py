"""Merge methods that mergekit computes, under the names it gives them.

Options, their defaults and how many models a method takes come from mergekit's own specifications, read when
a configuration names the method: nothing here imports mergekit before.
"""

from __future__ import annotations

import functools
import importlib.util
import math
from collections.abc import Callable, Sequence
from typing import Annotated, Any, ClassVar

from pydantic import AfterValidator, BaseModel, Field, create_model

from slm_plugin.errors import ConfigError, Problem
from slm_plugin.hookspecs import hookimpl
from slm_plugin.strict import Strict

NAMES = (
    "arcee_fusion",
    "breadcrumbs",
    "breadcrumbs_ties",
    "della",
    "della_linear",
    "karcher",
    "model_stock",
    "multislerp",
    "nearswap",
    "nuslerp",
    "passthrough",
    "ram",
    "ramplus_tl",
    "sce",
    "slerp",
)
"""Methods of mergekit 0.1.5 that this package has no code of its own for; a test compares with mergekit."""

INSTALL = "pip install 'slm-plugin[merge]'"


@functools.cache
def options_of(name: str) -> tuple[type[BaseModel], type[BaseModel]]:
    """Return models of the merge-wide options and of those of each model, from mergekit's specification."""
    spec = spec_of(name)
    shared = {parameter.name: _field(parameter) for parameter in spec.shared_parameters}
    per_model = {parameter.name: _field(parameter) for parameter in spec.input_parameters}
    return (
        create_model(f"{name}_options", __base__=Strict, **_safe(shared)),
        create_model(f"{name}_member_options", __base__=Strict, **_safe(per_model)),
    )


class _FromSpec:
    """A class attribute that is computed from mergekit's specification of the class's method."""

    def __init__(self, compute: Callable[[str], Any]) -> None:
        self.compute = compute

    def __get__(self, instance: object, owner: type[MergekitMethod]) -> Any:
        return self.compute(owner.name)


class MergekitMethod:
    """A method of mergekit; one class for each name.

    Args:
        options: The merge-wide options that mergekit specifies.
    """

    name: ClassVar[str] = ""
    engines = ("mergekit",)
    Options = _FromSpec(lambda name: options_of(name)[0])
    MemberOptions = _FromSpec(lambda name: options_of(name)[1])
    needs_base = _FromSpec(lambda name: _base_policy(name) == "required")
    uses_base = _FromSpec(lambda name: _base_policy(name) in ("required", "optional"))
    counts_base = _FromSpec(lambda name: _base_policy(name) == "ignored")

    def __init__(self, options: Any) -> None:
        self.options = options

    @staticmethod
    def require(where: str) -> None:
        """Refuse a method of mergekit where mergekit is not installed.

        Raises:
            ConfigError: Says how to install it.
        """
        require_mergekit(where)

    def problems(self, options: Sequence[Any]) -> list[str]:
        """Say whether the method takes another number of models."""
        contract, n = spec_of(self.name).contract, len(options)
        n_inputs = n + (1 if _base_policy(self.name) == "required" else 0)
        limits = [(contract.min_inputs, contract.max_inputs, n_inputs, n_inputs - n)]
        if contract.min_non_base is not None or contract.max_non_base is not None:
            limits.append((contract.min_non_base or 0, contract.max_non_base, n, 0))
        for low, high, found, n_base in limits:
            if found < low or (high is not None and found > high):
                few, many = low - n_base, None if high is None else high - n_base
                wanted = f"exactly {few}" if few == many else f"{few} to {many}" if many else f"at least {few}"
                return [f"{self.name} takes {wanted} model(s) beside its base_model, got {n}."]
        return []

    def share(self, options: Any) -> float:
        """Return a member's weight in rows of the vocabulary that not all models have."""
        weight = getattr(options, "weight", 1.0)
        return float(weight) if isinstance(weight, int | float) else 1.0


def require_mergekit(where: str) -> None:
    """Refuse to go on without mergekit.

    Raises:
        ConfigError: It is not installed.
    """
    if importlib.util.find_spec("mergekit") is None:
        raise ConfigError([Problem(where, f"runs in mergekit, which is not installed: {INSTALL}.")])


def spec_of(name: str) -> Any:
    """Return mergekit's specification of a method."""
    from mergekit import merge_methods

    return merge_methods.get(name).spec


def _base_policy(name: str) -> str:
    return str(spec_of(name).contract.base.value)


def _safe(fields: dict[str, Any]) -> dict[str, Any]:
    """Rename what Python has a word for; the key in the configuration stays."""
    return {f"{name}_" if name == "lambda" else name: field for name, field in fields.items()}


def _field(parameter: Any) -> tuple[Any, Any]:
    default = ... if parameter.required else parameter.default
    alias = {"alias": parameter.name} if parameter.name == "lambda" else {}
    kind = getattr(parameter.value_type, "__name__", str(parameter.value_type))

    def check(value: Any) -> Any:
        for scalar in _scalars(value):
            try:
                parsed = parameter.validate(scalar)
            except ValueError:
                raise ValueError(f"must be of type {kind}, or a list or filters of such, got {scalar!r}.") from None
            if isinstance(parsed, float) and not math.isfinite(parsed):
                raise ValueError(f"must be finite, got {scalar!r}.")
        return value

    return Annotated[Any, AfterValidator(check)], Field(default=default, **alias)


def _scalars(setting: Any) -> list[Any]:
    """Return the single values of a setting: a value, a gradient over the layers, or values by filter."""
    if isinstance(setting, list):
        if not setting:
            raise ValueError("must not be an empty list.")
        return [scalar for part in setting for scalar in _scalars(part)]
    if isinstance(setting, dict):
        if "value" not in setting or set(setting) - {"value", "filter"}:
            raise ValueError(f"a filter is {{filter: part of a tensor's name, value: ...}}, got {setting!r}.")
        return _scalars(setting["value"])
    return [setting]


@hookimpl
def slm_register_merges(register: Callable[[str, type], None]) -> None:
    """Offer what mergekit has beside our own methods."""
    for name in NAMES:
        register(name, type(f"Mergekit_{name}", (MergekitMethod,), {"name": name, "__doc__": MergekitMethod.__doc__}))
