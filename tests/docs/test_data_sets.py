from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest

from slm_plugin.plugins import Registry


@pytest.fixture(scope="module")
def data_sets(root: Path) -> dict[str, dict[str, Any]]:
    return json.loads((root / "dataset_info/dataset_info.json").read_text(encoding="utf-8"))


def test_every_part_of_the_published_data_is_there(data_sets: dict[str, dict[str, Any]]):
    urls = {entry["hf_hub_url"] for entry in data_sets.values() if "hf_hub_url" in entry}
    parts = {f"chiyuanhsiao/Magpie_rank{rank}_chunk{chunk}_interleaves" for rank in range(4) for chunk in range(10)}
    assert urls == parts | {"chiyuanhsiao/ls960_interleaves", "Magpie-Align/Llama-3-Magpie-Air-3M-v0.1"}


def test_every_entry_names_a_registered_stage_as_its_formatting(data_sets: dict[str, Any], registry: Registry):
    formats = {f"slm_{name}" for name in registry.stages.names()}
    assert {entry["formatting"] for entry in data_sets.values()} == formats


def test_every_local_entry_is_a_file_whose_first_row_makes_a_sample(
    data_sets: dict[str, dict[str, Any]], registry: Registry, root: Path
):
    local = {name: entry for name, entry in data_sets.items() if "file_name" in entry}
    assert set(local) == {"tiny_text", "tiny_asr", "tiny_tts", "tiny_sqa"}
    for entry in local.values():
        table = pyarrow.parquet.read_table(root / "dataset_info" / entry["file_name"])
        stage = registry.stages.get(entry["formatting"].removeprefix("slm_"))()
        sample = stage.sample(table.slice(0, 1).to_pylist()[0], unit_count=100)
        assert sample.user
        assert sample.assistant


def test_every_corpus_has_a_card_and_every_entry_is_on_one(data_sets: dict[str, Any], root: Path):
    index = (root / "dataset_info/README.md").read_text(encoding="utf-8")
    cards = {path.name for path in (root / "dataset_info").glob("*.md")} - {"README.md"}
    assert set(re.findall(r"\]\((\w+\.md)\)", index)) == cards
    text = "".join((root / "dataset_info" / card).read_text(encoding="utf-8").splitlines()[0] for card in cards)
    assert all(name in text for name in data_sets if not name.startswith("magpie_sqa"))
    assert "magpie_sqa_0_0 .. magpie_sqa_3_9" in text


def test_the_columns_of_the_index_are_those_of_the_stages(registry: Registry, root: Path):
    index = (root / "dataset_info/README.md").read_text(encoding="utf-8")
    for name in registry.stages.names():
        (row,) = re.findall(rf"^\| `slm_{name}` \| (.*;.*) \|$", index, re.MULTILINE)
        shown = [" | ".join(re.findall(r"`(\w+)`", part)) for part in row.split(";") if "optional" not in part]
        assert shown == [column.replace("|", " | ") for column in registry.stages.get(name)().columns]


def test_the_tiny_card_says_how_many_rows_there_are(root: Path):
    card = (root / "dataset_info/tiny.md").read_text(encoding="utf-8")
    for name in ("text", "speech", "sqa"):
        n_rows = pyarrow.parquet.read_metadata(root / f"examples/tiny/data/{name}.parquet").num_rows
        assert f"{n_rows:,}" in card, f"{name}.parquet has {n_rows:,} rows"
