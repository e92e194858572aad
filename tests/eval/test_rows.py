"""Reading evaluation files."""

from __future__ import annotations

from pathlib import Path

import datasets
import pytest

from slm_plugin.data.tables import is_hub_name
from slm_plugin.errors import DataError
from slm_plugin.eval.rows import DataOptions, read_rows, right_answers


def test_rows_are_read_up_to_the_limit_and_blank_lines_are_passed_over(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"a": 1}\n\n{"a": 2}\n{"a": 3}\n')
    assert read_rows(tmp_path / "a.jsonl", 2) == [{"a": 1}, {"a": 2}]
    assert len(read_rows(tmp_path / "a.jsonl")) == 3


@pytest.mark.parametrize(
    ("content", "message"),
    [("", "has no rows"), ('{"a": 1}\n{"a"\n', "line 2: not JSON"), ("[1]\n", "line 1: must be a JSON object")],
)
def test_files_that_cannot_be_used_are_refused_by_line(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "a.jsonl").write_text(content)
    with pytest.raises(DataError, match=message):
        read_rows(tmp_path / "a.jsonl")


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"there is no evaluation file .*none\.jsonl"):
        read_rows(tmp_path / "none.jsonl")


ROWS = [{"input": str(number), "output": "x"} for number in range(4)]


def in_form(folder: Path, form: str) -> str:
    """Write the same rows in one of the forms that data sets have, and return what a user would write."""
    rows = datasets.Dataset.from_list(ROWS)
    if form == "parquet file":
        rows.to_parquet(folder / "rows.parquet")
        return str(folder / "rows.parquet")
    if form == "folder of splits":
        (folder / "data").mkdir()
        rows.select([0]).to_parquet(folder / "data/train-00000-of-00001.parquet")
        rows.to_parquet(folder / "data/validation-00000-of-00001.parquet")
    elif form == "folder of lines":
        rows.to_json(folder / "test.jsonl")
    elif form == "saved":
        rows.save_to_disk(folder)
    else:
        datasets.DatasetDict({"train": rows.select([0]), "test": rows}).save_to_disk(folder)
    return str(folder)


@pytest.mark.parametrize(
    "form", ["parquet file", "folder of splits", "folder of lines", "saved", "saved with its splits"]
)
def test_data_sets_are_read_in_every_local_form(tmp_path: Path, form: str) -> None:
    path = in_form(tmp_path, form)
    assert DataOptions(data=path).rows() == ROWS
    assert DataOptions(data=path, n=2).rows() == ROWS[:2]


def test_a_split_is_chosen_by_name_and_a_wrong_one_is_refused_with_the_nearest(tmp_path: Path) -> None:
    path = in_form(tmp_path, "folder of splits")
    assert DataOptions(data=path, split="train").rows() == ROWS[:1]
    with pytest.raises(DataError, match=r"no split 'valid'\. Did you mean 'validation'\? Splits: train, validation"):
        DataOptions(data=path, split="valid").rows()


def test_a_name_on_the_hub_is_told_from_a_file_that_is_missing(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    assert is_hub_name("fixie-ai/llama-questions")
    assert not is_hub_name("data/rows.jsonl")
    with pytest.raises(DataError, match="nobody/nothing cannot be loaded"):
        DataOptions(data="nobody/nothing").rows()


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("Paris", ["Paris"]),
        (["Paris", "the city of Paris", "Paris"], ["Paris", "the city of Paris"]),
        ({"value": "Paris", "aliases": ["Lutetia", "Paris"]}, ["Paris", "Lutetia"]),
    ],
)
def test_right_answers_are_read_in_every_published_form(value, expected) -> None:
    assert right_answers({"answer": value}, "answers|answer") == expected


@pytest.mark.parametrize("value", [[], 3, [1], {"other": "x"}, " "])
def test_answers_of_no_known_form_are_refused(value) -> None:
    with pytest.raises(DataError, match="must be a text, a list of texts, or a mapping"):
        right_answers({"answer": value}, "answer")
