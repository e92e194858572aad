"""A corpus becomes rows: what is in them, what is reported, and that doing it again changes nothing."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile

from prepare import world
from slm_plugin.errors import ConfigError, DataError
from slm_plugin.plugins import Registry
from slm_plugin.prepare import run as prepare_run
from slm_plugin.prepare.data_card import REASONS, page
from slm_plugin.prepare.filters import ROW_FLAGS
from slm_plugin.prepare.job import make_job
from slm_plugin.prepare.options import load
from slm_plugin.prepare.parts import load_parts
from slm_plugin.prepare.plots import PICTURES
from slm_plugin.speech.audio import prepare as at_rate
from slm_plugin.speech.mel_kmeans import load_tiny

Prepared = Callable[..., Any]


def rows_of(folder: Path, split: str = "train") -> list[dict[str, Any]]:
    return [row for path in sorted((folder / split).glob("*.parquet")) for row in pq.read_table(path).to_pylist()]


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """Six recordings, of which the last three are a broken one, an empty text and unit tokens as text."""
    path = world.listed(tmp_path / "corpus", texts=[*world.TEXTS[:4], "", "a <|3|> b"])
    (tmp_path / "corpus/wav/03.wav").write_bytes(b"RIFF no recording")
    return path


def test_a_row_holds_integers_words_with_their_units_and_flags(prepared: Prepared, table: Path, tmp_path: Path):
    prepared(f"corpus.table.path={table}", "corpus.table.speaker=who")
    rows = rows_of(tmp_path / "out/set")
    assert [row["id"] for row in rows] == ["wav/00.wav", "wav/01.wav", "wav/02.wav"]
    first = rows[0]
    codec = load_tiny()
    expected = codec.encode(at_rate(*soundfile.read(table.parent / "wav/00.wav", dtype="float32"), 16_000))
    assert first["units"] == list(expected.values)
    assert first["durations"] == list(expected.durations)
    assert "".join(word["text"] for word in first["words"]) == first["text"] == "the red dog sings"
    assert [unit for word in first["words"] for unit in word["units"]] == first["units"]
    assert (first["speaker"], first["flags"], first["spans"][0]["start_s"]) == ("s0", ["even"], None)
    columns = pq.read_schema(tmp_path / "out/set/train/part-00000.parquet")
    assert columns.field("units").type == pa.list_(pa.int16())
    assert json.loads(columns.metadata[b"slm_codec"])["fingerprint"] == codec.fingerprint


def test_a_row_is_what_the_stages_take(prepared: Prepared, table: Path, tmp_path: Path, registry: Registry):
    prepared(f"corpus.table.path={table}")
    row = rows_of(tmp_path / "out/set")[0]
    heard = registry.stages.get("asr")().sample(row, 100)
    assert heard.assistant == "the red dog sings"
    assert heard.user.endswith(f"<|{row['units'][-1]}|>")
    spoken = registry.stages.get("tts")().sample(row, 100)
    assert spoken.user.endswith("the red dog sings")
    assert spoken.assistant.startswith("the<|")


def test_whatever_is_wrong_with_an_item_is_a_line_of_the_report(prepared: Prepared, table: Path, tmp_path: Path):
    prepared(f"corpus.table.path={table}")
    report = [json.loads(line) for line in (tmp_path / "out/set/report.jsonl").read_text().splitlines()]
    assert [(row["name"], row["reason"]) for row in report] == [
        ("wav/03.wav", "audio"),
        ("wav/04.wav", "no_text"),
        ("wav/05.wav", "units_in_text"),
    ]
    assert "cannot be read" in report[0]["message"]


def test_the_card_counts_hours_speakers_units_flags_and_reasons(prepared: Prepared, table: Path, tmp_path: Path):
    quiet = table.parent / "wav/01.wav"
    soundfile.write(quiet, 1e-5 * np.ones((22_050, 2)), 22_050, subtype="FLOAT")
    found = prepared(f"corpus.table.path={table}", "corpus.table.speaker=who", "corpus.table.licence=mine").summary()
    rows = rows_of(tmp_path / "out/set")
    assert found["rows"] == len(rows) == 3
    assert found["dropped"] == {"audio": 1, "no_text": 1, "units_in_text": 1}
    assert found["hours"] == pytest.approx(sum(row["seconds"] for row in rows) / 3600, abs=1e-4)
    assert found["units"] == sum(len(row["units"]) for row in rows)
    assert found["vocabulary_used"] == len({unit for row in rows for unit in row["units"]})
    assert found["speakers"] == 3
    assert set(found["flags"]) == set(ROW_FLAGS)
    assert {flag: n for flag, n in found["flags"].items() if n} == {
        "resampled": 1, "downmixed": 1, "silent": 1, "even": 3,
    }  # fmt: skip
    card = json.loads((tmp_path / "out/set/card.json").read_text())
    assert card["numbers"] == found
    assert card["licences"]["corpus"] == "mine"
    page = (tmp_path / "out/set/README.md").read_text()
    assert all(f"| {flag} | {n} |" in page for flag, n in found["flags"].items())
    assert all(f"| {reason} | {n} | {REASONS[reason]} |" in page for reason, n in found["dropped"].items())
    for name in PICTURES:
        assert (tmp_path / "out/set/images" / name).read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
        assert f"images/{name}" in page


@pytest.mark.parametrize("unknown", [None, float("nan")])
def test_the_card_leaves_out_numbers_that_are_not_known(
    prepared: Prepared, table: Path, tmp_path: Path, unknown: float | None, registry: Registry
):
    prepared(f"corpus.table.path={table}")
    written = (tmp_path / "out/set/README.md").read_text()
    # no aligner gave a score
    assert "| word times | those that came with the recordings, else guessed (flag `even`) |\n" in written
    assert "None" not in written
    options = load([f"corpus.table.path={table}", "name=set", f"output={tmp_path / 'out'}", "codec=tiny"])
    parts = load_parts(options, registry)
    card = json.loads((tmp_path / "out/set/card.json").read_text())
    card["numbers"] |= dict.fromkeys(("mean_alignment", "perplexity_of_units", "units_per_second"), unknown)
    bare = page(make_job(options, parts), card, {}, parts.corpus)
    assert not any(word in bare for word in ("None", "nan", "mean score", "perplexity", "a second |"))
    card["numbers"] |= {"mean_alignment": 0.5, "perplexity_of_units": 3.5, "units_per_second": 50.0}
    full = page(make_job(options, parts), card, {}, parts.corpus)
    assert all(text in full for text in (", mean score 0.5 |", ", perplexity 3.5 |", ", 50.00 a second |"))


def test_the_registry_gets_an_entry_per_stage_and_keeps_the_others(prepared: Prepared, table: Path, tmp_path: Path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/dataset_info.json").write_text('{"other": {"file_name": "x.json"}}')
    prepared(f"corpus.table.path={table}")
    known = json.loads((tmp_path / "out/dataset_info.json").read_text())
    assert list(known) == ["other", "set_asr", "set_tts"]
    assert known["set_tts"] == {"script_url": "set", "split": "train", "formatting": "slm_tts"}
    (tmp_path / "out/dataset_info.json").write_text('{"two_asr": {"file_name": "x.json"}}')
    with pytest.raises(DataError, match="already has another data set 'two_asr'"):
        prepared(f"corpus.table.path={table}", name="two")


def test_what_is_written_is_what_datasets_loads_from_the_folder(prepared: Prepared, table: Path, tmp_path: Path):
    import datasets

    prepared(f"corpus.table.path={table}", "shard_items=1", "split=dev")
    found = datasets.load_dataset(str(tmp_path / "out/set"), split="dev", cache_dir=str(tmp_path / "cache"))
    assert found.to_list() == rows_of(tmp_path / "out/set", "dev")


def test_doing_it_again_works_on_nothing_and_changes_no_byte(
    prepared: Prepared, table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    prepared(f"corpus.table.path={table}", "shard_items=2")
    before = world.tree(tmp_path / "out")
    asked: list[list[int]] = []
    monkeypatch.setitem(prepare_run.ENGINES, "local", lambda job, parts, shards, report: asked.append(shards))
    prepared(f"corpus.table.path={table}", "shard_items=2", "engine=local", "workers=7")
    assert asked == [[]]
    assert world.tree(tmp_path / "out") == before


def test_a_file_that_is_missing_or_damaged_is_made_again_with_the_same_bytes(
    prepared: Prepared, table: Path, tmp_path: Path
):
    prepared(f"corpus.table.path={table}", "shard_items=2")
    before = world.tree(tmp_path / "out")
    (tmp_path / "out/set/train/part-00001.parquet").unlink()
    (tmp_path / "out/set/train/part-00000.parquet").write_bytes(b"half a file")
    prepared(f"corpus.table.path={table}", "shard_items=2")
    assert world.tree(tmp_path / "out") == before


def test_the_size_of_shards_and_batches_changes_no_row(prepared: Prepared, table: Path, tmp_path: Path):
    prepared(f"corpus.table.path={table}", name="a")
    prepared(f"corpus.table.path={table}", "shard_items=1", "batch_seconds=0.1", name="b")
    assert rows_of(tmp_path / "out/a") == rows_of(tmp_path / "out/b")


def test_a_folder_that_was_begun_with_other_keys_is_refused_and_kept(prepared: Prepared, table: Path, tmp_path: Path):
    prepared(f"corpus.table.path={table}")
    before = world.tree(tmp_path / "out")
    with pytest.raises(DataError, match=r"was begun with interleave\.form \"words\", not \"spans\""):
        prepared(f"corpus.table.path={table}", "interleave.form=spans")
    with table.open("a") as file:
        file.write('{"audio": "wav/00.wav", "text": "more"}\n')
    with pytest.raises(DataError, match=r"fingerprints\.corpus .*; n_items 6, not 7"):
        prepared(f"corpus.table.path={table}")
    assert world.tree(tmp_path / "out") == before


def test_a_folder_of_something_else_is_never_written_to(prepared: Prepared, table: Path, tmp_path: Path):
    (tmp_path / "out/set").mkdir(parents=True)
    (tmp_path / "out/set/thesis.txt").write_text("dear")
    with pytest.raises(DataError, match="holds something that `slm prepare` did not make"):
        prepared(f"corpus.table.path={table}")
    assert (tmp_path / "out/set/thesis.txt").read_text() == "dear"


def test_when_nothing_can_be_kept_the_reasons_are_the_error(prepared: Prepared, tmp_path: Path):
    path = tmp_path / "list.csv"
    path.write_text("audio,text\na.wav,x\nb.wav,\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"none of 2 items could be kept \(audio 1, no_text 1\); .*report\.jsonl"):
        prepared(f"corpus.table.path={path}")


def test_a_codec_that_stumbles_over_one_wave_loses_that_one(
    prepared: Prepared, table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    codec_class = type(load_tiny())
    encode, bad = codec_class.encode, world.wave(1)

    def stumble(self: Any, wave_N: np.ndarray) -> Any:
        if len(wave_N) == len(bad) and np.abs(wave_N - bad).max() < 1e-3:
            raise RuntimeError("index out of range")
        return encode(self, wave_N)

    monkeypatch.setattr(codec_class, "encode", stumble)
    found = prepared(f"corpus.table.path={table}")
    assert found.n_rows == 2
    (row,) = (row for row in found.dropped if row["reason"] == "error")
    assert (row["name"], row["message"]) == ("wav/01.wav", "RuntimeError: index out of range")


def test_published_word_times_are_used_and_a_missing_file_drops_its_row(
    prepared: Prepared, table: Path, tmp_path: Path
):
    lines = [
        "wav/00.wav 1 0.0 0.1 the",
        "wav/00.wav 1 0.1 0.2 red",
        "wav/00.wav 1 0.3 0.2 dog",
        "wav/00.wav 1 .5 .1 sings",
    ]
    (tmp_path / "a.ctm").write_text("\n".join(lines), encoding="utf-8")
    found = prepared(f"corpus.table.path={table}", f"align.ctm.path={tmp_path / 'a.ctm'}")
    (row,) = rows_of(tmp_path / "out/set")
    assert [span["start_s"] for span in row["spans"]] == pytest.approx([0.0, 0.1, 0.3, 0.5])
    assert (row["alignment"], row["flags"]) == (1.0, [])
    assert found.reasons["alignment"] == 2


def test_every_problem_of_the_keys_is_told_at_once(prepared: Prepared, table: Path):
    with pytest.raises(ConfigError) as caught:
        prepared(f"corpus.tabel.path={table}", "align.ctm.pth=x", "voice.espaek.voice=en")
    said = str(caught.value)
    assert "no corpus is called 'tabel'. Did you mean 'table'" in said
    assert "align.ctm.pth: unknown key" in said
    assert "no voice is called 'espaek'. Did you mean 'espeak'" in said
    with pytest.raises(ConfigError, match="recordings are spoken already"):
        prepared(f"corpus.table.path={table}", "voice.endpoint.url=http://127.0.0.1:1/v1")
    with pytest.raises(ConfigError, match="name exactly one"):
        prepared("corpus.table.path=a", "corpus.hub.path=b")
    with pytest.raises(ConfigError, match="trim_below_db shifts"):
        prepared(f"corpus.table.path={table}", "audio.trim_below_db=-40.0", "align.ctm.path=x")
    with pytest.raises(ConfigError, match=r"shard_item: unknown key\. Did you mean 'shard_items'"):
        prepared(f"corpus.table.path={table}", "shard_item=1")
