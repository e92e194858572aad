"""Rows that are left out by flag, by text and by units per word, and tables in other forms."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import soundfile
from rich.console import Console

from prepare import world
from slm_plugin.errors import ConfigError
from slm_plugin.plugins import Registry
from slm_plugin.prepare.data_card import REASONS
from slm_plugin.prepare.filters import ROW_FLAGS, Drop, DroppedError, flag_reason
from slm_plugin.prepare.options import load
from slm_plugin.prepare.progress import Progress
from slm_plugin.prepare.run import prepare

Prepared = Callable[..., Any]
TEXTS = ("the red dog sings", "(beep) anna", "so it is", "a window", "no [noise]", "two cats")
BRACKETS = r"drop.patterns=['[\[(<].*[\])>]']"


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """Six recordings: two texts in brackets, silence, and twelve seconds for two words."""
    path = world.listed(tmp_path / "corpus", texts=TEXTS)
    soundfile.write(tmp_path / "corpus/wav/02.wav", np.zeros(16_000), 16_000)
    soundfile.write(tmp_path / "corpus/wav/03.wav", world.wave(3, 300), 16_000)
    return path


def names(folder: Path) -> list[str]:
    return [row["id"] for path in sorted(folder.glob("train/*.parquet")) for row in pq.read_table(path).to_pylist()]


def test_nothing_is_left_out_unless_it_is_named(prepared: Prepared, table: Path, tmp_path: Path):
    found = prepared(f"corpus.table.path={table}")
    assert found.n_rows == 6
    # the plan of a data set without filters is that of releases without them
    assert "drop" not in json.loads((tmp_path / "out/set/plan.json").read_text())["options"]


def test_rows_are_left_out_by_flag_text_and_units_per_word_and_counted(
    prepared: Prepared, table: Path, tmp_path: Path
):
    found = prepared(f"corpus.table.path={table}", BRACKETS, "drop.flags=[silent]", "drop.max_units_per_word=40")
    assert names(tmp_path / "out/set") == ["wav/00.wav", "wav/05.wav"]
    assert found.reasons == {"pattern": 2, "flag_silent": 1, "many_units_per_word": 1}
    report = [json.loads(line) for line in (tmp_path / "out/set/report.jsonl").read_text().splitlines()]
    messages = {row["name"]: row["message"] for row in report}
    assert messages["wav/01.wav"].startswith("the text holds '(beep)'")
    assert messages["wav/02.wav"] == "it is silent: below -80 dB of full scale."
    assert "units for 2 words" in messages["wav/03.wav"]
    card = (tmp_path / "out/set/README.md").read_text()
    assert "| pattern | 2 | its text matches `drop.patterns` |" in card
    assert "| flag_silent | 1 | it is silent: below -80 dB of full scale, and is named in `drop.flags` |" in card


def test_guessed_word_times_and_few_units_leave_out_too(prepared: Prepared, table: Path):
    found = prepared(f"corpus.table.path={table}", "drop.min_units_per_word=3", name="few")
    assert found.reasons["few_units_per_word"] >= 1
    with pytest.raises(Exception, match=r"none of 6 items could be kept \(flag_even 6\)"):
        prepared(f"corpus.table.path={table}", "drop.flags=[even]", name="even")


@pytest.mark.parametrize("form", ["hub", "chats"])
def test_every_form_of_corpus_has_the_same_filters(form: str, prepared: Prepared, tmp_path: Path, registry: Registry):
    if form == "hub":
        import datasets

        buffer = io.BytesIO()
        soundfile.write(buffer, world.wave(1), 16_000, format="FLAC")
        rows = {"audio": [{"bytes": buffer.getvalue(), "path": "a"}] * 2, "text": ["red", "<noise>"]}
        features = datasets.Features({"audio": datasets.Audio(), "text": datasets.Value("string")})
        datasets.Dataset.from_dict(rows, features=features).to_parquet(tmp_path / "rows.parquet")
        assert prepared(f"corpus.hub.path={tmp_path / 'rows.parquet'}", BRACKETS).reasons == {"pattern": 1}
    else:
        drop = Drop(patterns=["laughs"])
        for text in ("a", "he LAUGHS"):
            if "LAUGHS" in text:
                with pytest.raises(DroppedError, match="holds 'LAUGHS'"):
                    drop.check_text(text)
            else:
                drop.check_text(text)


def test_units_per_word_are_compared_with_both_bounds():
    drop = Drop(min_units_per_word=2, max_units_per_word=5)
    drop.check_units(10, 2)
    drop.check_units(4, 2)
    # 11 / 2 = 5.5, 3 / 2 = 1.5
    with pytest.raises(DroppedError, match=r"5\.50 units per word, more than 5"):
        drop.check_units(11, 2)
    with pytest.raises(DroppedError, match=r"1\.50 units per word, fewer than 2"):
        drop.check_units(3, 2)


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("drop.flags=[silnt]", "no flag is called 'silnt'. Did you mean 'silent'?"),
        ("drop.patterns=['[']", "is not a regular expression"),
        ("drop={min_units_per_word: 5, max_units_per_word: 2}", "min_units_per_word 5 is above max_units_per_word 2"),
        ("corpus.table.delimiter=;;", "a delimiter is one character, tab or auto"),
    ],
)
def test_a_filter_that_cannot_be_meant_is_refused(argument: str, message: str, table: Path, registry: Registry):
    with pytest.raises(ConfigError) as caught:
        prepare(
            load(["name=x", f"output={table.parent}", "codec=tiny", f"corpus.table.path={table}", argument]),
            registry,
            Progress(Console(file=io.StringIO())),
        )
    assert message in str(caught.value)


def test_every_reason_is_explained_in_the_card():
    assert {flag_reason(flag) for flag in ROW_FLAGS} <= set(REASONS)


def test_a_table_of_a_spreadsheet_is_read_and_the_guess_is_in_the_log(tmp_path: Path, registry: Registry):
    world.write_wave(tmp_path / "a.wav", 1)
    (tmp_path / "list.csv").write_bytes("Datei;Text\r\na.wav;Schöne Grüße\r\n".encode("latin-1"))
    console = Console(file=io.StringIO(), width=300)
    arguments = ["name=set", f"output={tmp_path / 'out'}", "codec=tiny", f"corpus.table.path={tmp_path / 'list.csv'}"]
    arguments += ["corpus.table.audio=Datei", "corpus.table.text=Text"]
    prepare(load(arguments), registry, Progress(console))
    assert "list.csv: read as cp1252 with fields separated by semicolon (guessed;" in console.file.getvalue()
    (row,) = pq.read_table(tmp_path / "out/set/train").to_pylist()
    assert row["text"] == "Schöne Grüße"
    given = ["corpus.table.delimiter=;", "corpus.table.encoding=latin-1"]
    console = Console(file=io.StringIO(), width=300)
    prepare(load(["name=two", *arguments[1:], *given]), registry, Progress(console))
    assert "guessed" not in console.file.getvalue()
