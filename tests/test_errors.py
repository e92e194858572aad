from __future__ import annotations

import inspect
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slm_plugin import errors
from slm_plugin.errors import ConfigError, EngineError, Problem, SlmError, suggest


def test_the_tree_in_the_docstring_names_every_error_and_nothing_else():
    drawn = set(re.findall(r"[├└]── (\w+)", errors.__doc__))
    written = {name for name, cls in vars(errors).items() if inspect.isclass(cls) and issubclass(cls, SlmError)} - {
        "SlmError"
    }
    assert drawn == written


def test_one_problem_reads_as_one_line():
    assert str(ConfigError([Problem("a.yaml: slm.stage", "is required.")])) == "a.yaml: slm.stage: is required."


def test_several_problems_are_counted_and_listed_in_order():
    error = ConfigError([Problem("slm.b", "is required."), Problem("slm.a", "unknown key.")])
    assert str(error) == "2 problems:\n  - slm.b: is required.\n  - slm.a: unknown key."


def test_a_near_name_is_offered_before_the_list():
    assert suggest("ars", ["tts", "sqa", "asr"], "Registered") == "Did you mean 'asr'? Registered: asr, sqa, tts."


def test_a_far_name_gets_only_the_list():
    assert suggest("zzzzzz", ["tts", "asr"]) == "Known: asr, tts."


def test_an_empty_list_of_names_says_none():
    assert suggest("asr", [], "Registered") == "Registered: none."


@given(st.lists(st.text(min_size=1), min_size=1), st.integers() | st.text() | st.none())
def test_every_known_name_is_listed_whatever_was_asked_for(names: list[str], asked: object):
    text = suggest(asked, names)
    assert all(name in text for name in names)


@given(st.text(alphabet="abcdefgh", min_size=4, max_size=12))
def test_a_name_with_one_letter_missing_is_recognised(name: str):
    # ratio = 2 * matches / total = 2 (n - 1) / (2 n - 1), at least 6 / 7 for four letters
    assert suggest(name[1:], [name, "0123456789"]).startswith(f"Did you mean {name!r}?")


@pytest.mark.parametrize(("arguments", "status"), [(("away",), 503), (("refused", 400), 400)])
def test_an_engine_error_carries_the_status_to_answer_with(arguments: tuple, status: int):
    assert EngineError(*arguments).status == status
