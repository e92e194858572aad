"""LLaMA-Factory as its source files declare it, without importing it: an import takes 15 s and more.

Every module becomes a stand-in whose functions have the declared signatures and whose classes have the declared
members, so that :func:`slm_plugin.host.surface.differences` compares it like the real module.
"""

from __future__ import annotations

import ast
import importlib.util
from collections.abc import Iterator
from inspect import Parameter, Signature
from pathlib import Path
from types import ModuleType
from typing import Any

from slm_plugin.host import surface

HOST = "llamafactory"


def source_differences() -> list[str] | None:
    """Compare the source of the installed host with ``surface.SURFACE``.

    Returns:
        What differs; None if the source files cannot be found or read.
    """
    spec = importlib.util.find_spec(HOST)
    if spec is None or not spec.submodule_search_locations:
        return None
    source = HostSource(Path(next(iter(spec.submodule_search_locations))))
    try:
        return [text for name in surface.SURFACE for text in surface.differences(source.module(name))]
    except (OSError, SyntaxError, ValueError):
        return None


class HostSource:
    """Reads modules of a package from its folder.

    Args:
        folder: The folder of the package ``llamafactory``.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._trees: dict[str, ast.Module] = {}
        self._made: dict[tuple[str, str], Any] = {}

    def module(self, name: str) -> ModuleType:
        """Return a stand-in for a module.

        Raises:
            OSError: There is no such file.
        """
        found = ModuleType(name)
        for symbol in _names(self._tree(name).body):
            setattr(found, symbol, self._symbol(name, symbol))
        return found

    def _tree(self, name: str) -> ast.Module:
        if name not in self._trees:
            path = self._path(name)
            self._trees[name] = ast.parse(path.read_text(encoding="utf-8"), str(path))
        return self._trees[name]

    def _path(self, name: str) -> Path:
        stem = self._folder.joinpath(*name.split(".")[1:])
        package = stem / "__init__.py"
        return package if package.is_file() else stem.with_suffix(".py")

    def _symbol(self, module: str, name: str) -> Any:
        """Return a stand-in for a symbol of a module, followed through imports inside the package."""
        key = (module, name)
        if key not in self._made:
            self._made[key] = object()  # ends circles
            self._made[key] = self._read(module, name)
        return self._made[key]

    def _read(self, module: str, name: str) -> Any:
        for statement in _statements(self._tree(module).body):
            if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef) and statement.name == name:
                return _function(statement)
            if isinstance(statement, ast.ClassDef) and statement.name == name:
                return self._class(module, statement)
            if isinstance(statement, ast.ImportFrom):
                for alias in statement.names:
                    if (alias.asname or alias.name) == name:
                        return self._imported(module, statement, alias.name)
        return object()

    def _imported(self, module: str, statement: ast.ImportFrom, name: str) -> Any:
        origin = statement.module or ""
        if statement.level:
            parts = module.split(".")
            keep = len(parts) - statement.level + (self._path(module).name == "__init__.py")
            origin = ".".join([*parts[:keep], *([origin] if origin else [])])
        if origin.split(".")[0] != HOST or not self._path(origin).is_file():
            return object()
        return self._symbol(origin, name)

    def _class(self, module: str, statement: ast.ClassDef) -> type:
        bases = [self._symbol(module, base.id) for base in statement.bases if isinstance(base, ast.Name)]
        content = {name: object() for name in _names(statement.body)}
        for part in _statements(statement.body):
            if isinstance(part, ast.FunctionDef | ast.AsyncFunctionDef):
                content[part.name] = _function(part)
        if any("dataclass" in ast.unparse(decorator) for decorator in statement.decorator_list):
            content["__signature__"] = _fields(bases, statement)
        known = tuple(dict.fromkeys(base for base in bases if isinstance(base, type)))
        try:
            return type(statement.name, known, content)
        except TypeError:
            return type(statement.name, (), content)


def _fields(bases: list[Any], statement: ast.ClassDef) -> Signature:
    """Return the signature of a dataclass: the fields of its bases, then its own."""
    names = [name for base in bases for name in getattr(getattr(base, "__signature__", None), "parameters", ())]
    own = [
        part.target.id
        for part in statement.body
        if isinstance(part, ast.AnnAssign) and isinstance(part.target, ast.Name)
    ]
    return Signature([Parameter(name, Parameter.POSITIONAL_OR_KEYWORD) for name in dict.fromkeys([*names, *own])])


def _statements(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """Yield the statements of a body and of the branches in it."""
    for statement in body:
        yield statement
        for part in ("body", "orelse", "finalbody"):
            if isinstance(statement, ast.If | ast.Try | ast.With):
                yield from _statements(getattr(statement, part, []))
        for handler in getattr(statement, "handlers", []):
            yield from _statements(handler.body)


def _names(body: list[ast.stmt]) -> list[str]:
    """Return the names that a body binds."""
    found: list[str] = []
    for statement in _statements(body):
        if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.append(statement.name)
        elif isinstance(statement, ast.Import | ast.ImportFrom):
            found += [alias.asname or alias.name.split(".")[0] for alias in statement.names]
        elif isinstance(statement, ast.Assign | ast.AnnAssign):
            targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
            found += [node.id for target in targets for node in ast.walk(target) if isinstance(node, ast.Name)]
    return found


def _function(statement: ast.FunctionDef | ast.AsyncFunctionDef) -> Any:
    given = statement.args
    parts: list[tuple[ast.arg, Any]] = [(each, Parameter.POSITIONAL_ONLY) for each in given.posonlyargs]
    parts += [(each, Parameter.POSITIONAL_OR_KEYWORD) for each in given.args]
    parts += [(given.vararg, Parameter.VAR_POSITIONAL)] if given.vararg else []
    parts += [(each, Parameter.KEYWORD_ONLY) for each in given.kwonlyargs]
    parts += [(given.kwarg, Parameter.VAR_KEYWORD)] if given.kwarg else []

    def stand_in() -> None:
        """Stand for a function of the host."""

    stand_in.__signature__ = Signature([Parameter(each.arg, kind) for each, kind in parts])  # type: ignore[attr-defined]
    return stand_in
