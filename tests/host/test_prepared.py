"""What ``slm prepare`` writes is what the host trains on, found by name in ``dataset_info.json``."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from host.world import train_config
from prepare import world
from prepare.fixtures import prepared
from slm_plugin import card
from slm_plugin.vocabulary import text_to_units

pytestmark = [pytest.mark.host, pytest.mark.xdist_group("host")]

__all__ = ["prepared"]

UNITS = {"units": {"codec": "tiny"}}


@pytest.fixture
def config(prepared: Any, units_base_100: Path, tmp_path: Path) -> Any:
    """A train configuration on six prepared recordings in three files."""
    prepared(f"corpus.table.path={world.listed(tmp_path / 'corpus')}", "shard_items=2")

    def make(stage: str, **changes: Any) -> dict[str, Any]:
        return train_config(
            units_base_100, tmp_path / "out", tmp_path / stage, stage, dataset=f"set_{stage}", **changes
        )

    return make


@pytest.fixture(scope="module")
def units_base_100(llm: Path, run_host: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from host.world import export_config

    folder = tmp_path_factory.mktemp("bases") / "tiny"
    run_host(export_config(llm, folder, slm=UNITS))
    return folder


@pytest.mark.parametrize("stage", ["asr", "tts"])
def test_the_host_reads_the_rows_of_all_files_in_order(stage: str, config: Any, tmp_path: Path):
    from llamafactory.data import get_template_and_fix_tokenizer
    from llamafactory.hparams import get_train_args
    from llamafactory.model import load_tokenizer
    from llamafactory.train.sft import workflow

    arguments = get_train_args(copy.deepcopy(config(stage, slm={"stage": stage, **UNITS})))
    module = load_tokenizer(arguments[0])
    template = get_template_and_fix_tokenizer(module["tokenizer"], arguments[1])
    found = workflow.get_dataset(template, *arguments[:3], stage="sft", **module)["train_dataset"]
    texts = [module["tokenizer"].decode(row["input_ids"]) for row in found]
    assert len(texts) == len(world.TEXTS)
    import pyarrow.parquet as pq

    rows = [row for path in sorted((tmp_path / "out/set/train").iterdir()) for row in pq.read_table(path).to_pylist()]
    assert [text_to_units(text) for text in texts] == [row["units"] for row in rows]


def test_a_stage_trains_on_prepared_rows_and_replays_them(config: Any, run_host: Any, tmp_path: Path):
    mitigations = [{"replay": {"sources": {"set_asr": 0.5}}}]
    run_host(config("tts", slm={"stage": "tts", **UNITS, "mitigations": mitigations}))
    assert card.read(tmp_path / "tts")["replay"] == {"set_asr": 3}
    log = [json.loads(line) for line in (tmp_path / "tts/trainer_log.jsonl").read_text().splitlines()]
    assert all(row["loss"] > 0 for row in log if "loss" in row)
