"""Command groups whose verbs are imported when they are used, and advice for packages that are not installed.

``slm --version`` imports no verb, ``slm units`` imports one, and ``slm --help`` imports the signatures of all. A verb
that cannot be imported leaves every other verb usable.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from importlib import metadata
from typing import Any

import typer
from typer.core import TyperGroup
from typer.main import get_command

from slm_plugin.errors import PluginError

DISTRIBUTION = "slm-plugin"


class LazyCommands(MutableMapping[str, Any]):
    """Commands by name; a command is built when it is read, and names are listed without imports.

    Args:
        verbs: ``module:function`` by name. A function that returns a ``typer.Typer`` without taking arguments is a
            group if its name is in ``groups``.
        groups: Names of ``verbs`` that are groups.
        entry_points: Entry-point group of further verbs; empty for none. They are listed after ``verbs``.
    """

    def __init__(self, verbs: Mapping[str, str], groups: frozenset[str], entry_points: str) -> None:
        self._targets = dict(verbs)
        self._groups = groups
        self._entry_points = entry_points
        self._installed: dict[str, metadata.EntryPoint] | None = None
        self._built: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:
        if name not in self._built:
            self._built[name] = self._build(name)
        return self._built[name]

    def __setitem__(self, name: str, command: Any) -> None:
        self._built[name] = command

    def __delitem__(self, name: str) -> None:
        self._built.pop(name, None)
        if self._targets.pop(name, None) is None:
            del self._others()[name]

    def __contains__(self, name: object) -> bool:
        return name in self._built or name in self._targets or name in self._others()

    def __iter__(self) -> Iterator[str]:
        plain = [name for name in self._targets if name not in self._groups]
        found = [*plain, *self._others(), *(name for name in self._targets if name in self._groups), *self._built]
        return iter(dict.fromkeys(found))

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def _others(self) -> dict[str, metadata.EntryPoint]:
        """Return the installed verbs; reading them takes some 50 ms, so it is done once and only if needed."""
        if self._installed is None:
            found = metadata.entry_points(group=self._entry_points) if self._entry_points else ()
            self._installed = {entry.name: entry for entry in sorted(found, key=lambda entry: entry.name)}
        return self._installed

    def _build(self, name: str) -> Any:
        if name in self._targets:
            module, _, attribute = self._targets[name].partition(":")
            function = getattr(importlib.import_module(module), attribute)
            return _group(name, function()) if name in self._groups else _command(name, function)
        entry = self._others()[name]
        try:
            return _command(name, entry.load())
        except Exception as error:
            anything = {"ignore_unknown_options": True, "allow_extra_args": True}
            return _command(name, _unusable(name, entry, error), anything)


def lazy_group(
    verbs: Mapping[str, str], groups: frozenset[str] = frozenset(), entry_points: str = ""
) -> type[TyperGroup]:
    """Return the ``cls`` of a ``typer.Typer`` whose commands are :class:`LazyCommands` with these arguments."""

    class LazyGroup(TyperGroup):
        """A group that imports a command when it is used."""

        def __init__(self, **settings: Any) -> None:
            super().__init__(**settings)
            self.commands = LazyCommands(verbs, groups, entry_points)

        def list_commands(self, ctx: Any) -> list[str]:
            """Return the names of all commands; nothing is imported."""
            return list(self.commands)

    return LazyGroup


def install_advice(module: str) -> str | None:
    """Return the ``pip install`` command that adds a module which this package can use.

    Returns:
        None if no dependency of this package, optional or not, has the name of the module.
    """
    wanted = _normalised(module.partition(".")[0])
    try:
        requirements = metadata.requires(DISTRIBUTION) or []
    except metadata.PackageNotFoundError:
        return None
    for requirement in requirements:
        name = re.match(r"[A-Za-z0-9._-]+", requirement)
        if name is None or _normalised(name[0]) not in (wanted, f"python-{wanted}"):
            continue
        extra = re.search(r"extra\s*==\s*['\"]([^'\"]+)['\"]", requirement)
        return f"pip install '{DISTRIBUTION}[{extra[1]}]'" if extra else f"pip install {name[0]}"
    return None


def describe_missing(error: ModuleNotFoundError) -> str | None:
    """Return one line about a package that is not installed; None if it is no dependency of this package."""
    advice = install_advice(error.name or "")
    return advice and f"the Python package {str(error.name).partition('.')[0]!r} is not installed; run: {advice}"


def _normalised(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _command(name: str, function: Callable[..., Any], settings: dict[str, Any] | None = None) -> Any:
    single = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    single.command(name, context_settings=settings)(function)
    return get_command(single)


def _group(name: str, app: typer.Typer) -> Any:
    command = get_command(app)
    command.name = name
    return command


def _unusable(name: str, entry: metadata.EntryPoint, error: Exception) -> Callable[..., None]:
    """Return a verb that says why the real one cannot be imported."""
    reason = describe_missing(error) if isinstance(error, ModuleNotFoundError) else None
    reason = reason or f"{entry.value} cannot be imported ({type(error).__name__}: {' '.join(str(error).split())})"

    def unusable() -> None:
        raise PluginError(f"slm {name} is not available: {reason}.")

    unusable.__doc__ = f"Not available: {reason}."
    return unusable
