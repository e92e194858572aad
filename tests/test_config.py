from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from damping import Damping, registry_with_damping
from slm_plugin.config import UnitsConfig, parse_block
from slm_plugin.errors import ConfigError
from slm_plugin.stages.asr import AsrStage


@pytest.fixture(scope="module")
def registry():
    return registry_with_damping()


def problems(raw: object, registry: object) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        parse_block(raw, registry, "asr.yaml: slm")
    return [str(problem) for problem in caught.value.problems]


def test_a_block_yields_its_stage_and_mitigations_in_order(registry):
    config = parse_block({"stage": "asr", "mitigations": [{"damping": {"factors": {"head": 0.05}}}]}, registry)
    assert [type(instance) for instance in config.instances] == [AsrStage, Damping]
    assert config.instances[1].options.factors == {"head": 0.05}


def test_an_empty_block_asks_for_nothing(registry):
    config = parse_block({}, registry)
    assert (config.instances, config.unit_count, config.block.train_units) == ((), 0, "modules")


def test_the_command_line_gives_the_same_block_as_json(registry):
    raw = {"stage": "tts", "units": {"count": 200}, "train_units": "rows"}
    assert parse_block(json.dumps(raw), registry).block == parse_block(raw, registry).block


def test_broken_json_is_one_readable_problem(registry):
    (text,) = problems('{"stage": ', registry)
    assert text.startswith("asr.yaml: slm: is not valid JSON (")


@pytest.mark.parametrize(("units", "count"), [({}, 10_000), ({"count": 200}, 200), (None, 0)])
def test_the_number_of_units_is_taken_from_the_block(units: dict | None, count: int, registry):
    assert parse_block({"units": units}, registry).unit_count == count


def test_units_come_from_a_count_or_a_codec_not_both(registry):
    (text,) = problems({"units": {"count": 5, "codec": "x"}}, registry)
    assert "set either count or codec, not both" in text


def test_an_unknown_codec_is_named(registry):
    (text,) = problems({"units": {"codec": "no-such-codec"}}, registry)
    assert text.startswith("asr.yaml: slm.units.codec: ")
    assert "no-such-codec" in text


@pytest.mark.parametrize("count", [0, -1, 1_000_001, 2.5, "200", True])
def test_a_number_of_units_that_cannot_be_is_refused(count: object, registry):
    (text,) = problems({"units": {"count": count}}, registry)
    assert text.startswith("asr.yaml: slm.units.count: ")
    assert text.endswith(f"got {count!r}.")


def test_all_problems_of_block_stage_and_mitigations_come_at_once(registry):
    found = problems(
        {
            "stgae": "asr",
            "stage": "ars",
            "train_units": "row",
            "mitigations": [{"dampign": {}}, {"damping": {"factors": {"head": -1.0}, "whne": "always"}}],
        },
        registry,
    )
    assert [text.removeprefix("asr.yaml: ").split(": ")[0] for text in found] == [
        "slm.train_units",
        "slm.stgae",
        "slm.stage",
        "slm.mitigations[0]",
        "slm.mitigations[1].damping.factors",
        "slm.mitigations[1].damping.whne",
    ]
    assert "Did you mean 'rows'?" in found[0]
    assert "Did you mean 'stage'?" in found[1]
    assert "no stage is called 'ars'. Did you mean 'asr'?" in found[2]
    assert "no mitigation is called 'dampign'. Did you mean 'damping'? Registered: " in found[3]
    assert "the factor of 'head' must be 0 or more, got -1.0" in found[4]


@pytest.mark.parametrize("entry", [{"damping": {}, "other": {}}, {}])
def test_a_mitigation_entry_is_one_name(entry: dict, registry):
    (text,) = problems({"mitigations": [entry]}, registry)
    assert text == f"asr.yaml: slm.mitigations[0]: each entry is one name with its options, got {sorted(entry)}."


def test_a_mitigation_without_options_may_be_written_as_its_name(registry):
    (text,) = problems({"mitigations": ["damping"]}, registry)
    assert text == "asr.yaml: slm.mitigations[0].damping.factors: is required."


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["stage", "units", "count", "mitigations", "damping", "x"]), inner, max_size=4
            )
        ),
        max_leaves=8,
    )
)
def test_any_yaml_value_is_parsed_or_refused_in_our_words(registry, raw: object):
    try:
        config = parse_block(raw, registry)
    except ConfigError as error:
        problems = error.problems
    else:
        problems = ()
        assert isinstance(raw, dict | str)
        assert config.unit_count >= 0
    assert all(problem.where.startswith("slm") and problem.what for problem in problems)


def test_the_default_number_of_units_is_ten_thousand():
    assert UnitsConfig().default_count == 10_000
