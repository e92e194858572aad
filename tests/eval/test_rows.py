"""Reading evaluation files."""

from __future__ import annotations

from pathlib import Path

import pytest

from slm_plugin.errors import DataError
from slm_plugin.eval.rows import read_rows


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
