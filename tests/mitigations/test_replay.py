from __future__ import annotations

import pytest

from slm_plugin.config import parse_block
from slm_plugin.errors import ConfigError


def problem(sources: object, registry: object) -> str:
    with pytest.raises(ConfigError) as caught:
        parse_block({"mitigations": [{"replay": {"sources": sources}}]}, registry, "asr.yaml: slm")
    (found,) = caught.value.problems
    return str(found)


@pytest.mark.parametrize("ratio", [-0.1, float("nan"), float("inf"), "half"])
def test_a_ratio_that_cannot_be_is_refused(ratio: object, registry):
    assert problem({"llm": ratio}, registry).startswith("asr.yaml: slm.mitigations[0].replay.sources")


def test_a_negative_ratio_is_named_with_its_source(registry):
    assert "the ratio of 'llm' must be 0 or more, got -0.1" in problem({"asr": 0.5, "llm": -0.1}, registry)


def test_replay_needs_a_source(registry):
    assert problem({}, registry).startswith("asr.yaml: slm.mitigations[0].replay.sources: ")


@pytest.mark.parametrize(
    ("schedule", "words"),
    [
        ({"start": 1.0, "end": 0.2}, "end needs shape: linear"),
        ({"shape": "linear", "end": 0.0, "at": 0.3}, "at needs shape"),
    ],
)
def test_a_key_that_the_shape_of_a_schedule_does_not_use_is_refused(schedule, words, registry):
    with pytest.raises(ConfigError, match=words):
        parse_block({"mitigations": [{"replay": {"sources": {"llm": 0.1}, "schedule": schedule}}]}, registry, "slm")
