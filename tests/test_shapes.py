"""Every public function says the shape of each array that it takes and gives, in a name or in its docstring."""

import ast
import re
from pathlib import Path

import pytest

from signatures import Function, arguments, functions_of, modules, public_functions, sections

SPOKEN_FOR = ("protocol.py", "hookspecs.py")
ARRAY = re.compile(r"\b(?:ndarray|NDArray|Tensors?|ArrayLike)\b")
SUFFIX = re.compile(r"_[A-Z][A-Z0-9]*$")
SHAPE = re.compile(r"``\((?:[^()`]*,[^()`]*)?\)``|\bshape\b|\bscalars?\b")


def is_array(annotation: ast.expr | None) -> bool:
    return annotation is not None and bool(ARRAY.search(ast.unparse(annotation)))


def words(function: Function) -> tuple[dict[str, str], str]:
    """What a docstring says of each argument (in its first part, where it has no ``Args:`` but one array) and else."""
    lead, of_arguments, rest = sections(function)
    if not of_arguments and len(arrays := arguments(function, is_array)) == 1:
        of_arguments = {arrays[0]: lead}
    return of_arguments, f"{lead}\n{rest}"


def unsaid(function: Function, inherited: list[Function]) -> list[str]:
    """Name the arrays whose shape neither the function says nor one that it stands in for; ``return`` is one."""
    if any(ast.unparse(decorator).endswith("overload") for decorator in function.decorator_list):
        return []
    told = [words(one) for one in (function, *inherited)]
    unnamed = [name for name in arguments(function, is_array) if not SUFFIX.search(name)]
    missing = [name for name in unnamed if not any(SHAPE.search(said.get(name, "")) for said, _ in told)]
    if is_array(function.returns) and not any(SHAPE.search(rest) for _, rest in told):
        missing.append("return")
    return missing


def declared(package: Path, module: Path) -> dict[str, list[Function]]:
    """Methods by name that a protocol declares for a module: of its folder or of a folder above."""
    found: dict[str, list[Function]] = {}
    for folder in module.relative_to(package.parent).parents:
        for path in (package.parent / folder / name for name in SPOKEN_FOR if folder != Path()):
            for name, function in functions_of(path) if path.is_file() else ():
                if "." in name and path != module:
                    found.setdefault(function.name, []).append(function)
    return found


def test_every_public_function_says_the_shape_of_each_array_it_takes_and_gives(root: Path):
    silent, with_arrays = [], 0
    for package, path in modules(root):
        spoken_for = declared(package, path)
        for name, function in functions_of(path):
            with_arrays += bool(arguments(function, is_array)) or is_array(function.returns)
            inherited = spoken_for.get(function.name, []) if "." in name else []
            silent += [(f"{path}:{function.lineno}", name, array) for array in unsaid(function, inherited)]
    assert with_arrays > 120
    assert silent == []


@pytest.mark.parametrize(
    ("source", "missing"),
    [
        ("def f(wave_N: NDArray): ...", []),
        ("def f(wave: NDArray): ...", ["wave"]),
        ("def f(wave: NDArray):\n '''Play ``(N,)`` samples.'''", []),
        ("def f(wave: NDArray):\n '''Play ``(1 - x) * y`` of ``f(a, b)``: no shapes.'''", ["wave"]),
        ("def f(a: Tensor, b: Tensor):\n '''Add both, ``(N,)``.'''", ["a", "b"]),
        ("def f(a: Tensor):\n '''Add ``(N,)``.\n\n Args:\n     a: One.\n '''", ["a"]),
        ("def f(a: Tensor):\n '''Add.\n\n Args:\n     b: Any shape.\n     a: Two.\n '''", ["a"]),
        ("def f(a: Tensor):\n '''Add.\n\n Args:\n     a: One, of\n         any shape.\n     b: Two.\n '''", []),
        ("def f(a: Tensor) -> Tensor:\n '''Add.\n\n Args:\n     a: Of any shape.\n '''", ["return"]),
        ("def f() -> 'dict[str, torch.Tensor]':\n '''Return it.'''", ["return"]),
        ("def f() -> Tensor:\n '''Return the sum.\n\n Returns:\n     A scalar.\n '''", []),
        ("class A:\n @property\n def a(self) -> ArrayLike:\n  '''Return it.'''", ["return"]),
        ("class A:\n def __call__(self, *, a: NDArray | None = None): ...", ["a"]),
        ("class _A:\n def f(self, a: NDArray): ...\ndef _f(a: NDArray): ...\n@overload\ndef g(a: NDArray): ...", []),
    ],
)
def test_the_check_finds_what_is_not_said_and_nothing_else(source: str, missing: list[str]):
    found = public_functions(ast.parse(source).body)
    assert [array for _, function in found for array in unsaid(function, [])] == missing


def test_a_method_may_leave_its_words_to_the_protocol_that_declares_it():
    source = "def f() -> Tensor:\n '''Return ``(N,)``.'''\ndef f() -> Tensor:\n '''Return it.'''"
    (_, spoken), (_, method) = public_functions(ast.parse(source).body)
    assert (unsaid(method, []), unsaid(method, [spoken])) == (["return"], [])
