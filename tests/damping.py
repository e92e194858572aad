"""A mitigation from outside: what tests of the block name in it, so that no built-in is tied to them."""

from __future__ import annotations

import types
from collections.abc import Callable
from typing import Literal

from pydantic import Field, field_validator

from slm_plugin.hookspecs import hookimpl
from slm_plugin.plugins import Registry
from slm_plugin.strict import Strict


class Damping:
    """Does nothing, by options of each kind: required, nested, checked by a function, and one of several words."""

    class Options(Strict):
        """Options of ``damping``."""

        factors: dict[str, float] = Field(min_length=1)
        """A factor of 0 or more for each part."""

        when: Literal["once", "always"] = "once"
        """A word."""

        @field_validator("factors")
        @classmethod
        def _not_negative(cls, factors: dict[str, float]) -> dict[str, float]:
            for part, factor in factors.items():
                if factor < 0:
                    raise ValueError(f"the factor of {part!r} must be 0 or more, got {factor}.")
            return factors

    def __init__(self, options: Options) -> None:
        self.options = options


def registry_with_damping() -> Registry:
    """What the built-ins offer, and this."""
    plugin = types.ModuleType("outside")

    @hookimpl
    def slm_register_mitigations(register: Callable[[str, type], None]) -> None:
        register("damping", Damping)

    plugin.slm_register_mitigations = slm_register_mitigations
    return Registry.load(extra=[plugin], entry_points=False)
