from __future__ import annotations

import enum
from typing import Literal

import pytest
from pydantic import Field, field_validator

from slm_plugin.errors import ConfigError
from slm_plugin.strict import Strict, parse


class Inner(Strict):
    rank: int = Field(default=8, ge=1)
    kind: Literal["linear", "ties"] = "linear"


class Outer(Strict):
    name: str
    rate: float = 1.0
    inner: Inner = Inner()
    many: list[Inner] = Field(default_factory=list)
    by_name: dict[str, Inner] = Field(default_factory=dict)
    maybe: Inner | None = None

    @field_validator("rate")
    @classmethod
    def _positive(cls, rate: float) -> float:
        if rate <= 0:
            raise ValueError(f"must be above 0, got {rate}.")
        return rate


def problems(raw: object) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        parse(Outer, raw, "a.yaml: slm")
    return [str(problem) for problem in caught.value.problems]


def test_a_valid_mapping_becomes_a_frozen_model():
    model = parse(Outer, {"name": "a", "inner": {"rank": 2}}, "slm")
    assert (model.name, model.inner.rank, model.inner.kind) == ("a", 2, "linear")
    with pytest.raises(ValueError, match="frozen"):
        model.name = "b"


def test_whole_numbers_are_accepted_where_a_real_one_is_asked_for():
    assert parse(Outer, {"name": "a", "rate": 2}, "slm").rate == 2.0


def test_every_problem_is_reported_at_once():
    found = problems({"rate": "fast", "inner": {"rank": 0, "knd": "ties"}, "many": [{}, {"kind": "tie"}]})
    assert len(found) == 5
    assert found[0] == "a.yaml: slm.name: is required."


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ({"name": "a", "inner": {"rnk": 1}}, "slm.inner.rnk: unknown key. Did you mean 'rank'? Keys: kind, rank."),
        ({"name": "a", "many": [{"knd": 1}]}, "slm.many[0].knd: unknown key. Did you mean 'kind'? Keys: kind, rank."),
        ({"name": "a", "maybe": {"rnk": 1}}, "slm.maybe.rnk: unknown key. Did you mean 'rank'? Keys: kind, rank."),
        ({"name": "a", "inner": {"kind": "tie"}}, "'tie' is not accepted. Did you mean 'ties'?"),
        ({"name": "a", "rate": -1.0}, "slm.rate: must be above 0, got -1.0."),
        ({"name": 3}, "slm.name: input should be a valid string, got 3."),
        ({"name": "a", "inner": {"rank": 0}}, "slm.inner.rank: input should be greater than or equal to 1, got 0."),
        ({"name": "a", "inner": {"rank": True}}, "slm.inner.rank: input should be a valid integer, got True."),
        ({"name": "a", "inner": {"rank": "8"}}, "slm.inner.rank: input should be a valid integer, got '8'."),
    ],
)
def test_a_problem_says_where_what_and_what_is_accepted(raw: dict, expected: str):
    (text,) = problems(raw)
    assert expected in text
    assert text.startswith("a.yaml: slm.")


def test_an_unknown_key_inside_a_mapping_of_models_lists_the_keys_of_that_model():
    (text,) = problems({"name": "a", "by_name": {"x": {"rnk": 1}}})
    assert text == "a.yaml: slm.by_name.x.rnk: unknown key. Did you mean 'rank'? Keys: kind, rank."


@pytest.mark.parametrize("raw", [None, [], "name: a", 3])
def test_something_else_than_a_mapping_is_refused(raw: object):
    (text,) = problems(raw)
    assert text == f"a.yaml: slm: must be a mapping of keys, got {raw!r}."


def test_long_values_are_shortened():
    (text,) = problems({"name": ["x" * 500]})
    assert len(text) < 150
    assert text.endswith("....")


def test_choices_of_every_kind_of_literal_are_listed():
    class Colour(enum.Enum):
        RED = "red"

    class Model(Strict):
        key: Literal["a", "b", "c"] = "a"
        colour: Colour = Colour.RED

    with pytest.raises(ConfigError, match="Accepted: a, b, c"):
        parse(Model, {"key": "d"}, "slm")
