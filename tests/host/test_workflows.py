"""LLaMA-Factory's stages beside sft, and its switches to other trainers, with a block."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from transformers import AutoTokenizer

from host.world import UNITS, same, train_config, weights, write_data
from slm_plugin import card
from slm_plugin.errors import ConfigError, DataError
from slm_plugin.host import runtime, workflows

pytestmark = [
    pytest.mark.host,
    pytest.mark.xdist_group("host"),
    # trl and what it imports warn about themselves
    pytest.mark.filterwarnings("ignore:numpy.core is deprecated:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:The `padding_value` property is deprecated:UserWarning"),
]

PREFERENCES = {"dpo": "pairs", "rm": "pairs", "kto": "judged"}
BLOCK = {"stage": "asr", "units": {"count": UNITS}}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Rows of ours, some without units, and preference sets of the host's own forms with units in their text."""
    folder = write_data(tmp_path_factory.mktemp("workflows"))
    info = json.loads((folder / "dataset_info.json").read_text(encoding="utf-8"))
    pairs = [
        {"instruction": f"say <|{i}|><|{i + 1}|>", "input": "", "chosen": f"yes <|{i}|>", "rejected": f"no {i}"}
        for i in range(12)
    ]
    judged = [
        {
            "messages": [
                {"role": "user", "content": f"say <|{i}|>"},
                {"role": "assistant", "content": f"yes <|{i}|>"},
            ],
            "label": bool(i % 2),
        }
        for i in range(12)
    ]
    rows = [json.loads(line) for line in (folder / "libri.jsonl").read_text(encoding="utf-8").splitlines()]
    holes = [
        row | ({"discrete_unit": [], "interleaf": "no units"} if i % 4 == 0 else {}) for i, row in enumerate(rows)
    ]
    (folder / "pairs.json").write_text(json.dumps(pairs), encoding="utf-8")
    (folder / "judged.json").write_text(json.dumps(judged), encoding="utf-8")
    (folder / "holes.json").write_text(json.dumps(holes), encoding="utf-8")
    (folder / "silent.json").write_text(json.dumps([row | {"discrete_unit": []} for row in rows]), encoding="utf-8")
    info["pairs"] = {
        "file_name": "pairs.json",
        "ranking": True,
        "columns": {"prompt": "instruction", "query": "input", "chosen": "chosen", "rejected": "rejected"},
    }
    info["judged"] = {
        "file_name": "judged.json",
        "formatting": "sharegpt",
        "columns": {"messages": "messages", "kto_tag": "label"},
        "tags": {"role_tag": "role", "content_tag": "content", "user_tag": "user", "assistant_tag": "assistant"},
    }
    for name, form in (("holes", "slm_asr"), ("holes_tts", "slm_tts"), ("silent", "slm_asr")):
        info[name] = {"file_name": f"{name.removesuffix('_tts')}.json", "formatting": form}
    (folder / "dataset_info.json").write_text(json.dumps(info), encoding="utf-8")
    return folder


def config(model, data, output, stage: str, **changes: Any) -> dict[str, Any]:
    return train_config(model, data, output, **changes) | {"stage": stage}


@pytest.mark.parametrize("stage", sorted(PREFERENCES))
def test_a_preference_stage_trains_with_a_block_as_without_it(stage, units_base, data, run_host, tmp_path):
    changes = {"dataset": PREFERENCES[stage], "max_steps": 2}
    run_host(config(units_base, data, tmp_path / "without", stage, slm=None, **changes))
    run_host(config(units_base, data, tmp_path / "with", stage, slm={}, **changes))
    assert same(weights(tmp_path / "without"), weights(tmp_path / "with"))
    found = card.read(tmp_path / "with")
    assert found["units"]["count"] == UNITS
    assert found["base"]["path"] == str(units_base)


@pytest.mark.parametrize("stage", sorted(PREFERENCES))
def test_a_preference_stage_gives_a_model_without_units_its_unit_vocabulary(stage, llm, data, run_host, tmp_path):
    run_host(config(llm, data, tmp_path, stage, dataset=PREFERENCES[stage], max_steps=1, slm=BLOCK))
    assert any("embed_tokens" in name for name in weights(tmp_path))
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    rows = runtime.active().train_dataset
    assert len(rows) == 12
    ids = rows[3]["chosen_input_ids" if "chosen_input_ids" in rows.column_names else "input_ids"]
    assert tokenizer.convert_tokens_to_ids("<|3|>") in ids


def test_long_preference_rows_are_counted_by_the_longer_answer(units_base, data, run_host, tmp_path, slm_log):
    changes = {"dataset": "pairs", "max_steps": 1, "slm": {"long_samples": "drop"}, "cutoff_len": 20}
    with pytest.raises(DataError, match=r"data set 'pairs' has no row shorter than cutoff_len 20"):
        run_host(config(units_base, data, tmp_path, "dpo", **changes))
    assert "12 reached cutoff_len 20" in slm_log()


@pytest.mark.parametrize("stage", sorted(PREFERENCES))
def test_rows_with_one_answer_are_refused_by_data_set_format_and_stage(stage, units_base, data, run_host, tmp_path):
    for key in ("dataset", "eval_dataset"):
        changes = {"dataset": PREFERENCES[stage]} | {key: "asr"}
        with pytest.raises(ConfigError) as caught:
            run_host(config(units_base, data, tmp_path, stage, slm=BLOCK, **changes))
        assert "data set 'asr' has formatting: slm_asr, whose rows have one answer each" in str(caught.value)
        assert f"stage: {stage} learns from preferences" in str(caught.value)


def test_ppo_is_refused_and_the_message_names_what_the_host_itself_needs(units_base, data, run_host, tmp_path):
    with pytest.raises(ConfigError, match=r"slm: cannot be used with stage: ppo, .* trl 0\.8\.6 to 0\.9\.6"):
        run_host(config(units_base, data, tmp_path, "ppo", reward_model=str(units_base)))


def test_mitigations_are_refused_outside_sft(units_base, data, run_host, tmp_path):
    slm = BLOCK | {"mitigations": ["kl_anchor"]}
    with pytest.raises(ConfigError, match=r"slm\.mitigations: act on the host's stage: sft only, got stage: pt"):
        run_host(config(units_base, data, tmp_path, "pt", slm=slm))


def pretrained_texts(run_host, model, data, output, dataset: str, **changes: Any) -> list[str]:
    """Train one step of ``stage: pt`` and return the text of every row."""
    run_host(config(model, data, output, "pt", dataset=dataset, max_steps=1, packing=False, **changes))
    tokenizer = AutoTokenizer.from_pretrained(output)
    return [tokenizer.decode(row["input_ids"]) for row in runtime.active().train_dataset]


def test_pretraining_learns_units_alone_or_words_interleaved_with_them(llm, data, run_host, tmp_path):
    rows = [json.loads(line) for line in (data / "libri.jsonl").read_text(encoding="utf-8").splitlines()]
    alone = pretrained_texts(run_host, llm, data, tmp_path / "asr", "asr")
    assert len(alone) == len(rows)
    expected = "".join(f"<|{unit}|>" for unit in rows[0]["discrete_unit"])
    # the end is what the host puts behind every text of this template
    assert alone[0] == expected + "<|end_of_text|>"
    interleaved = pretrained_texts(run_host, llm, data, tmp_path / "tts", "tts")
    assert interleaved[0] == rows[0]["interleaf"] + "<|end_of_text|>"
    assert card.read(tmp_path / "tts")["units"]["count"] == UNITS
    first_id = card.read(tmp_path / "tts")["units"]["first_id"]
    ids = runtime.active().train_dataset[0]["input_ids"]
    units = [int(unit) for unit in re.findall(r"<\|(\d+)\|>", rows[0]["interleaf"])]
    assert [i - first_id for i in ids if i >= first_id] == units


def test_pretraining_drops_and_counts_rows_without_units(llm, data, run_host, tmp_path, slm_log):
    assert len(pretrained_texts(run_host, llm, data, tmp_path / "asr", "holes")) == 30
    assert "holes: 30 of 40 rows, 10 dropped as empty or invalid" in slm_log()
    run_host(config(llm, data, tmp_path / "tts", "pt", dataset="holes_tts", max_steps=1, cutoff_len=32))
    assert "10 dropped as empty or invalid" in slm_log().splitlines()[-1]


def test_pretraining_on_rows_without_any_unit_is_refused_by_name(llm, data, run_host, tmp_path):
    with pytest.raises(DataError, match=r"data set 'silent' has no usable row"):
        run_host(config(llm, data, tmp_path, "pt", dataset="silent"))


@pytest.mark.parametrize("key", sorted(workflows.SWITCHES))
def test_a_switch_to_the_trainer_of_another_package_is_refused(key, units_base, data, run_host, tmp_path):
    for stage in ("sft", "pt"):
        with pytest.raises(ConfigError, match=rf"slm: cannot be used with {key}, whose trainer calls none"):
            run_host(config(units_base, data, tmp_path, stage, **{key: True}))


@pytest.mark.parametrize("variable", ["USE_MCA", "USE_MEGATRON_BRIDGE"])
def test_a_switch_in_the_environment_is_refused(variable, units_base, data, run_host, tmp_path, monkeypatch):
    monkeypatch.setenv(variable, "1")
    with pytest.raises(ConfigError, match=rf"slm: cannot be used with {variable}=1"):
        run_host(config(units_base, data, tmp_path, "sft"))


def test_the_second_trainer_of_the_host_refuses_the_block_and_parses_without_it(data, tmp_path, monkeypatch):
    import sys

    from llamafactory.v1.config import arg_parser

    with pytest.raises(ConfigError, match=r"slm: cannot be used with USE_V1=1"):
        arg_parser.get_args({"model": "m", "slm": {"stage": "asr"}})
    (tmp_path / "train.yaml").write_text("model: m\nslm: {stage: asr}\n", encoding="utf-8")
    monkeypatch.setattr(sys, "argv", ["sft", str(tmp_path / "train.yaml")])
    with pytest.raises(ConfigError, match=r"USE_V1=1"):
        arg_parser.get_args()
    assert arg_parser.get_args({"model": "m"})[0].model == "m"


def test_unsloth_is_refused_with_units(units_base, data, run_host, tmp_path, monkeypatch):
    from llamafactory.hparams import parser

    # the host looks for the package before we see its arguments
    monkeypatch.setattr(parser, "check_version", lambda *args, **kwargs: None)
    with pytest.raises(ConfigError, match=r"slm\.units: need the LoRA options of train_units"):
        run_host(config(units_base, data, tmp_path, "sft", use_unsloth=True))


@pytest.mark.parametrize(
    ("raw", "key", "on"),
    [
        ({"use_mca": True}, "use_mca", True),
        ({"use_mca": "false"}, "use_mca", False),
        (["--use_mca"], "use_mca", True),
        (["--use_mca", "false", "--x"], "use_mca", False),
        (["--use_mca", "--x"], "use_mca", True),
        (["--use_mca=True"], "use_mca", True),
        ([], "use_mca", False),
    ],
)
def test_switches_are_read_in_every_form_of_arguments(raw, key, on):
    assert workflows._is_on(raw, key) is on


def test_a_block_is_recognised_in_every_form_of_arguments():
    assert workflows.has_block({"slm": {}})
    assert workflows.has_block(["--slm", "{}"])
    assert workflows.has_block(["--slm={}"])
    assert not workflows.has_block({"slm": None})
    assert not workflows.has_block(["--stage", "sft"])


def test_a_stage_without_a_continuous_text_is_refused_in_pretraining(monkeypatch):
    from slm_plugin.host import converters

    class Reverse:
        columns = ("units",)

        def sample(self, row, unit_count):
            return None

    class Registry:
        stages = {"reverse": Reverse}  # noqa: RUF012  # as the catalogue is read

    monkeypatch.setattr(runtime, "registry", lambda: Registry)
    monkeypatch.setattr(runtime, "host_stage", lambda: "pt")
    attribute = type("Attribute", (), {"slm_name": "mine"})
    with pytest.raises(ConfigError, match=r"data set 'mine' has formatting: slm_reverse.*no method continuous_text"):
        converters.make_converter(attribute, None, "reverse")
