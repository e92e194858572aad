"""The ``slm:`` block as people write it: in YAML, on the command line, and wrongly."""

from __future__ import annotations

import json
import sys

import pytest
import yaml

from damping import registry_with_damping
from host.world import train_config
from slm_plugin.errors import ConfigError
from slm_plugin.host import runtime

pytestmark = [pytest.mark.host, pytest.mark.xdist_group("host")]


@pytest.fixture
def parse(llm, data, tmp_path, monkeypatch):
    """Parse a train configuration as the command line does and return the block in force."""

    monkeypatch.setattr(runtime, "registry", registry_with_damping)

    def run(slm, *overrides, **changes):
        from llamafactory.hparams import get_train_args

        config = train_config(llm, data, tmp_path / "out", slm=slm, **changes)
        path = tmp_path / "asr.yaml"
        path.write_text(yaml.safe_dump(config))
        monkeypatch.setattr(sys, "argv", ["llamafactory-cli", str(path), *overrides])
        get_train_args()
        return runtime.active()

    return run


def test_a_block_is_in_force_after_parsing(parse):
    active = parse({"stage": "asr", "units": {"count": 50, "seed": 3}})
    assert active.config.unit_count == 50
    assert active.config.block.units.seed == 3
    assert active.seed == 42


def test_without_a_block_nothing_is_in_force(parse):
    assert parse({"stage": "asr"}) is not None
    assert parse(None) is None


def test_dotted_overrides_reach_every_level(parse):
    active = parse(
        {"stage": "asr", "mitigations": [{"damping": {"factors": {"head": 0.1, "body": 0.2}}}]},
        "slm.units.count=60",
        "slm.stage=tts",
        "slm.mitigations.damping.factors.head=0.5",
        "slm.mitigations.damping.when=always",
        "max_steps=9",
    )
    assert active.config.unit_count == 60
    assert active.config.block.stage == "tts"
    expected = {"damping": {"factors": {"head": 0.5, "body": 0.2}, "when": "always"}}
    assert active.config.block.mitigations == [expected]


def test_an_override_can_add_a_mitigation(parse):
    active = parse({"stage": "asr"}, "slm.mitigations.damping.factors.head=0.5")
    assert active.config.block.mitigations == [{"damping": {"factors": {"head": 0.5}}}]


def test_the_block_can_be_json_on_a_plain_command_line(llm, data, tmp_path, monkeypatch):
    from llamafactory.hparams import get_train_args

    words = []
    for key, value in train_config(llm, data, tmp_path / "out", slm=None).items():
        words += [f"--{key}", str(value)]
    monkeypatch.setattr(sys, "argv", ["x", *words, "--slm", json.dumps({"units": {"count": 7}})])
    get_train_args()
    assert runtime.active().config.unit_count == 7


JSON = json.dumps({"stage": "tts", "units": {"count": 60, "seed": 5}})
PIECES = JSON.split()


@pytest.mark.parametrize(
    "words",
    [
        ["--slm", JSON],
        [f"--slm={JSON}"],
        [f"slm={JSON}"],
        ["slm={stage: tts, units: {count: 60, seed: 5}}"],
        # as torchrun passes them on
        ["--slm", *PIECES],
        [f"--slm={PIECES[0]}", *PIECES[1:]],
        [f"slm={PIECES[0]}", *PIECES[1:]],
    ],
)
@pytest.mark.parametrize("place", [0, 1, 2])
def test_json_on_the_command_line_changes_the_block_of_the_yaml(words, place, parse):
    others = ["max_steps=9", "slm.mitigations.damping.factors.head=0.5"]
    active = parse(
        {"stage": "asr", "units": {"count": 50}, "long_samples": "cut"}, *others[:place], *words, *others[place:]
    )
    assert (active.config.block.stage, active.config.unit_count, active.config.block.units.seed) == ("tts", 60, 5)
    assert active.config.block.long_samples == "cut"
    assert active.config.block.mitigations == [{"damping": {"factors": {"head": 0.5}}}]


def test_json_on_the_command_line_is_the_block_of_a_yaml_without_one(parse):
    assert parse(None, "--slm", *PIECES).config.unit_count == 60


def test_a_plain_command_line_in_pieces_is_read_as_a_whole_one(llm, data, tmp_path, monkeypatch):
    from llamafactory.hparams import get_train_args

    words = []
    for key, value in train_config(llm, data, tmp_path / "out", slm=None).items():
        words += [f"--{key}", str(value)]
    monkeypatch.setattr(sys, "argv", ["x", "--slm", *PIECES, *words])
    get_train_args()
    assert runtime.active().config.unit_count == 60


def test_a_value_that_is_no_mapping_is_refused_with_the_dotted_form(parse):
    with pytest.raises(
        ConfigError, match=r"command line: slm: '\{\\?\"stage\\?\": max_steps=9' is not a mapping.*slm.stage=asr"
    ):
        parse({"stage": "asr"}, "--slm", '{"stage":', "max_steps=9")


def test_all_mistakes_are_told_at_once_with_the_nearest_names(parse):
    with pytest.raises(ConfigError) as caught:
        parse(
            {
                "stage": "ars",
                "unitz": {"count": 5},
                "train_units": "row",
                "units": {"count": "many"},
                "mitigations": [{"dampign": {}}, {"damping": {"factors": {"head": -0.1}, "whne": "always"}}],
            }
        )
    told = [str(problem) for problem in caught.value.problems]
    expected = [
        "asr.yaml: slm.unitz: unknown key. Did you mean 'units'?",
        "asr.yaml: slm.train_units: 'row' is not accepted. Did you mean 'rows'? Accepted: modules, rows.",
        "asr.yaml: slm.units.count: input should be a valid integer, got 'many'.",
        "asr.yaml: slm.stage: no stage is called 'ars'. Did you mean 'asr'?",
        "asr.yaml: slm.mitigations[0]: no mitigation is called 'dampign'. Did you mean 'damping'?",
        "asr.yaml: slm.mitigations[1].damping.factors: the factor of 'head' must be 0 or more, got -0.1.",
        "asr.yaml: slm.mitigations[1].damping.whne: unknown key. Did you mean 'when'?",
    ]
    for text in expected:
        assert any(line.startswith(text) for line in told), text
    assert len(told) == len(expected)


@pytest.mark.parametrize(
    ("slm", "changes", "message"),
    [
        (
            {"units": {"count": 50}, "train_units": "rows"},
            {"finetuning_type": "full"},
            r"slm.train_units: rows needs finetuning_type: lora, got full",
        ),
        (
            {"mitigations": [{"damping": {"factors": {"head": 0.1}}}]},
            {"stage_of_host": "pt"},
            r"slm.mitigations: act on the host's stage: sft only, got stage: pt",
        ),
        ("units", {}, "slm: is not valid JSON"),
        ({"units": {"count": 0}}, {}, r"slm.units.count: input should be greater than or equal to 1, got 0"),
        ({"units": {"count": 5, "codec": "x"}}, {}, "slm.units: set either count or codec, not both"),
        ({"units": {"codec": "nosuchcodec"}}, {}, "slm.units.codec: .*nosuchcodec"),
    ],
)
def test_a_mistake_is_one_readable_line(parse, slm, changes, message):
    if "stage_of_host" in changes:
        changes = {"template": "llama3"}
        with pytest.raises(ConfigError, match=message):
            parse(slm, "stage=pt")
        return
    with pytest.raises(ConfigError, match=message):
        parse(slm, **changes)
