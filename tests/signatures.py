"""What the checks on docstrings read of the code: public functions, their arguments, and what is said of each."""

import ast
import re
from collections.abc import Callable, Iterator
from pathlib import Path

PACKAGES = ("slm_plugin", "serve/slm_serve")
SECTION = re.compile(r"^(Args|Returns|Yields|Raises|Note|Example|Examples):$", re.MULTILINE)
ENTRY = re.compile(r"^ {4}\*{0,2}(\w+): ?", re.MULTILINE)
Function = ast.FunctionDef | ast.AsyncFunctionDef


def modules(root: Path) -> Iterator[tuple[Path, Path]]:
    """Every module of the product, with its package."""
    for package in (root / name for name in PACKAGES):
        yield from ((package, path) for path in sorted(package.rglob("*.py")))


def public_functions(body: list[ast.stmt], owner: str = "") -> Iterator[tuple[str, Function]]:
    """Functions and methods that others may call, by dotted name."""
    for node in body:
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            yield from public_functions(node.body, f"{owner}{node.name}.")
        elif isinstance(node, ast.If | ast.Try):
            yield from public_functions(node.body + node.orelse, owner)
        elif isinstance(node, Function) and (node.name == "__call__" or not node.name.startswith("_")):
            yield f"{owner}{node.name}", node


def functions_of(path: Path) -> list[tuple[str, Function]]:
    return list(public_functions(ast.parse(path.read_text(encoding="utf-8")).body))


def arguments(function: Function, holds: Callable[[ast.expr | None], bool]) -> list[str]:
    """Names of the arguments whose annotation is one of those asked for."""
    found = function.args
    every = [*found.posonlyargs, *found.args, found.vararg, *found.kwonlyargs, found.kwarg]
    return [argument.arg for argument in every if argument and holds(argument.annotation)]


def sections(function: Function) -> tuple[str, dict[str, str], str]:
    """The first part of a docstring, what ``Args:`` says of each argument, and what else is said of the result."""
    lead, *parts = SECTION.split(ast.get_docstring(function) or "")
    said = dict(zip(parts[::2], parts[1::2], strict=True))
    _, *entries = ENTRY.split(said.get("Args", ""))
    of_arguments = dict(zip(entries[::2], entries[1::2], strict=True))
    return lead, of_arguments, "\n".join((said.get("Returns", ""), said.get("Yields", "")))
