"""Merge methods that mergekit computes, under the names it gives them.

Options, their defaults and how many models a method takes come from mergekit's own specifications, read when
a configuration names the method: nothing here imports mergekit before.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

from slm_plugin.errors import ConfigError, Problem
from slm_plugin.hookspecs import hookimpl
from slm_plugin.merge.mergekit_options import options_of, plain, spec_of
from slm_plugin.merge.options import sum_problems

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
        """Say whether the method takes another number of models, or cannot work with these weights and densities."""
        return [*self._number_problems(len(options)), *self._weight_problems(options), *_della_problems(options)]

    def _number_problems(self, n: int) -> list[str]:
        contract = spec_of(self.name).contract
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

    def _weight_problems(self, options: Sequence[Any]) -> list[str]:
        weights = [plain(getattr(option, "weight", None)) for option in options]
        known = [weight for weight in weights if weight is not None]
        if not weights or len(known) < len(weights):
            return []
        if self.name == "nuslerp":
            return sum_problems(known, True, switch=None)
        switch = "normalize_weights" if self.name == "multislerp" else "normalize"
        return sum_problems(known, getattr(self.options, switch, False) is True, switch)

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


def _della_problems(options: Sequence[Any]) -> list[str]:
    """Say which models leave DELLA a probability of 0 or 1, or one outside of that range."""
    problems = []
    for position, option in enumerate(options):
        density, epsilon = plain(getattr(option, "density", None)), plain(getattr(option, "epsilon", None))
        if density is None or epsilon is None or density in (0.0, 1.0):
            continue
        if not (epsilon < density < 1 - epsilon):
            problems.append(
                f"model {position + 1} has density {density:g} and epsilon {epsilon:g}, but density - epsilon and"
                " density + epsilon must lie between 0 and 1; lower epsilon."
            )
    return problems


def _base_policy(name: str) -> str:
    return str(spec_of(name).contract.base.value)


@hookimpl
def slm_register_merges(register: Callable[[str, type], None]) -> None:
    """Offer what mergekit has beside our own methods."""
    for name in NAMES:
        register(name, type(f"Mergekit_{name}", (MergekitMethod,), {"name": name, "__doc__": MergekitMethod.__doc__}))
