"""Every public number that is a time, a rate, a length or a size says its unit, in its name or in its docstring.

A number counts as one where its name says so (``start``, ``hop``, ``window``, ``timeout``, ...). Its unit stands in
the name (``rate_hz``, ``block_seconds``, ``n_frames``) or in the docstring; shares and factors say that they are one.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from signatures import Function, arguments, functions_of, modules, public_functions, sections

NUMBER = re.compile(r"\b(?:int|float)\b")
MEASURED = re.compile(
    r"(?:^|_)(?:start|started|end|at|after|before|hop|window|frame|rate|speed|pitch|duration|length|context|look_?ahead"
    r"|timeout|wait|waited|delay|pause|gap|idle|age|interval|deadline|drain|stall|expires|created|until|latency|clock"
    r"|seconds|hours|memory|disk|cutoff|centre|floor|budget|offset)s?(?:_|$)"
)
# what these names end in is the unit; the count, the token's number and the bound say of what they are
NAMED = re.compile(
    r"^n_|_(?:hz|s|ms|db|gb|bytes|seconds|hours|tokens|frames|samples|units|layers|steps|rows|words|id)$"
    r"|^(?:seconds|hours|at_least|at_most)$"
)
UNIT = re.compile(
    r"\b(?:k?hz|samples?|(?:milli)?seconds?|ms|minutes?|hours?|bytes?|[kmg]i?b|db|decibels?|inches|pixels|tokens?|frames?"
    r"|units?|layers?|steps?|rows?|words?|characters?|epochs?|per cent|percent|share|factor|ratio|times|scores?"
    r"|magnitudes?|amplitude)\b",
    re.IGNORECASE,
)


def is_number(annotation: ast.expr | None) -> bool:
    return annotation is not None and bool(NUMBER.search(ast.unparse(annotation)))


def is_measured(name: str) -> bool:
    return bool(MEASURED.search(name)) and not NAMED.search(name)


def unsaid(function: Function) -> list[str]:
    """Name the measured numbers whose unit the function does not say; ``return`` is one."""
    lead, of_arguments, rest = sections(function)
    measured = [name for name in arguments(function, is_number) if is_measured(name)]
    missing = [name for name in measured if not UNIT.search(of_arguments.get(name, lead))]
    # a verb such as ``wait`` says what is done, not what is given
    if is_number(function.returns) and is_measured(function.name) and not lead.startswith(("Wait", "Raise")):
        missing += [] if UNIT.search(f"{lead}\n{rest}") else ["return"]
    return missing


def fields(tree: ast.Module) -> Iterator[tuple[str, str]]:
    """Measured fields of public classes, each with its words: those below it, else those of the class."""
    for owner in ast.walk(tree):
        if not isinstance(owner, ast.ClassDef) or owner.name.startswith("_"):
            continue
        for field, below in zip(owner.body, [*owner.body[1:], None], strict=True):
            if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
                has_words = isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant)
                if is_number(field.annotation) and is_measured(field.target.id):
                    said = str(below.value.value) if has_words else ast.get_docstring(owner) or ""
                    yield f"{owner.name}.{field.target.id}", said


def test_every_public_number_that_is_measured_says_in_what(root: Path):
    silent, n_measured = [], 0
    for _, path in modules(root):
        for name, function in functions_of(path):
            n_measured += sum(map(is_measured, arguments(function, is_number)))
            silent += [f"{path.relative_to(root)}:{function.lineno} {name}: {one}" for one in unsaid(function)]
        for name, said in fields(ast.parse(path.read_text(encoding="utf-8"))):
            n_measured += 1
            silent += [] if UNIT.search(said) else [f"{path.relative_to(root)} {name}"]
    assert n_measured > 50
    assert silent == []


@pytest.mark.parametrize(
    ("source", "missing"),
    [
        ("def f(start_s: float): ...", []),
        ("def f(start: float): ...", ["start"]),
        ("def f(start: float):\n '''Cut from ``start`` on, in seconds.'''", []),
        ("def f(start: float):\n '''Cut, in seconds.\n\n Args:\n     start: Where it begins.\n '''", ["start"]),
        ("def f(*, hop: int | None = None):\n '''Cut.\n\n Args:\n     hop: Samples between frames.\n '''", []),
        ("def f(start: str, number: int): ...", []),
        ("def duration() -> float:\n '''Return how long it is.'''", ["return"]),
        ("def duration() -> float:\n '''Return how long it is.\n\n Returns:\n     Seconds.\n '''", []),
        ("def wait() -> int:\n '''Wait for its end and return its exit status.'''", []),
        ("class _A:\n def f(self, start: int): ...\ndef _f(start: int): ...", []),
    ],
)
def test_the_check_finds_functions_that_do_not_say_it_and_no_others(source: str, missing: list[str]):
    found = public_functions(ast.parse(source).body)
    assert [name for _, function in found for name in unsaid(function)] == missing


def test_the_check_reads_the_words_below_a_field_or_else_those_of_its_class():
    source = "class A:\n '''Of sound.'''\n end: float\n hop: int = 1\n '''Samples.'''\n window_s: float\n count: int"
    assert list(fields(ast.parse(source))) == [("A.end", "Of sound."), ("A.hop", "Samples.")]
