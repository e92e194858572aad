"""One set of recordings in every form of corpus gives the same units, and every aligner works in a run."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow.parquet as pq
import pytest
import soundfile

from alignment.recogniser import make_recogniser
from prepare import world
from slm_plugin.speech.mel_kmeans import load_tiny
from speech.test_hubert_kmeans import make

N = 4


def write_librispeech(root: Path) -> str:
    return f"corpus.librispeech.path={world.librispeech(root, N)}"


def write_common_voice(root: Path) -> str:
    lines = ["client_id\tpath\tsentence\tlocale"]
    for number in range(N):
        world.write_wave(root / f"de/clips/c{number}.wav", number)
        lines.append(f"anna\tc{number}.wav\t{world.TEXTS[number].upper()}\tde")
    (root / "de/train.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return f"corpus.common_voice.path={root / 'de'}"


def write_ljspeech(root: Path) -> str:
    lines = []
    for number in range(N):
        world.write_wave(root / f"wavs/LJ{number}.wav", number)
        lines.append(f"LJ{number}|raw|{world.TEXTS[number].upper()}")
    (root / "metadata.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return f"corpus.ljspeech.path={root}"


def write_table(root: Path) -> str:
    return f"corpus.table.path={world.listed(root, N, [text.upper() for text in world.TEXTS])}"


def write_hub(root: Path) -> str:
    """Rows as the hub has them: encoded recordings in an audio column."""
    contents = [world.write_wave(root / f"{number}.wav", number).read_bytes() for number in range(N)]
    rows = {
        "audio": [{"bytes": content, "path": None} for content in contents],
        "text": [text.upper() for text in world.TEXTS[:N]],
    }
    features = datasets.Features({"audio": datasets.Audio(), "text": datasets.Value("string")})
    datasets.Dataset.from_dict(rows, features=features).to_parquet(root / "rows.parquet")
    return f"corpus.hub.path={root / 'rows.parquet'}"


FORMS = [write_librispeech, write_common_voice, write_ljspeech, write_table, write_hub]


def rows_of(folder: Path) -> list[dict[str, Any]]:
    return [row for path in sorted((folder / "train").glob("*.parquet")) for row in pq.read_table(path).to_pylist()]


@pytest.mark.parametrize("write", FORMS, ids=lambda write: write.__name__.removeprefix("write_"))
def test_the_units_of_a_recording_do_not_depend_on_the_form_it_came_in(
    write: Callable[[Path], str], prepared: Callable[..., Any], tmp_path: Path
):
    prepared(write(tmp_path / "corpus"))
    found = {row["text"]: row["units"] for row in rows_of(tmp_path / "out/set")}
    # 16-bit files of the same sound
    path = world.write_wave(tmp_path / "again.wav", 0)
    expected = load_tiny().encode(soundfile.read(path, dtype="float32")[0]).values
    assert set(found) == {text.upper() for text in world.TEXTS[:N]}
    assert found[world.TEXTS[0].upper()] == list(expected)


def test_a_recogniser_places_the_words_of_a_run(prepared: Callable[..., Any], tmp_path: Path):
    recogniser = make_recogniser(tmp_path / "recogniser")
    found = prepared(write_table(tmp_path / "corpus"), f"align.ctc.model={recogniser}")
    rows = rows_of(tmp_path / "out/set")
    for row in rows:
        starts = [span["start_s"] for span in row["spans"]]
        assert starts == sorted(starts)
        assert None not in starts
        assert 0.0 < row["alignment"] < 1.0
        assert row["flags"] == []
    card = json.loads((tmp_path / "out/set/card.json").read_text())
    mean = np.mean([row["alignment"] for row in rows])
    assert card["numbers"]["mean_alignment"] == pytest.approx(mean, abs=1e-3)
    assert "see its page" in card["licences"]["aligner"]
    assert found.reasons == {}


def test_a_recogniser_drops_a_text_that_is_longer_than_the_speech(prepared: Callable[..., Any], tmp_path: Path):
    recogniser = make_recogniser(tmp_path / "recogniser")
    path = world.listed(tmp_path / "corpus", 2, ["RED", "RED " * 40])
    found = prepared(f"corpus.table.path={path}", f"align.ctc.model={recogniser}")
    assert (found.n_rows, found.reasons) == (1, {"alignment": 1})
    assert "the text is longer than the speech" in found.dropped[0]["message"]


def test_a_codec_of_a_speech_network_takes_many_at_once_and_its_own_grid(prepared: Callable[..., Any], tmp_path: Path):
    codec = make()
    codec.save(tmp_path / "codec")
    lines = [f"wav/0{number}.wav 1 0 0.2125 {world.TEXTS[number].split()[0]}" for number in range(N)]
    (tmp_path / "a.ctm").write_text("\n".join(lines), encoding="utf-8")
    path = world.listed(tmp_path / "corpus", N, [" ".join(text.split()[:2]) for text in world.TEXTS])
    prepared(f"corpus.table.path={path}", f"codec={tmp_path / 'codec'}", f"align.ctm.path={tmp_path / 'a.ctm'}")
    rows = rows_of(tmp_path / "out/set")
    assert len(rows) == N
    for number, row in enumerate(rows):
        wave, _ = soundfile.read(path.parent / f"wav/0{number}.wav", dtype="float32")
        assert row["units"] == list(codec.encode(wave).values)
        assert "durations" not in row
        # centres lie at 12.5 ms and every 20 ms: ten of them (.0125 to .1925) are before .2125, the next is at it
        assert row["words"][0]["units"] == row["units"][:10]
        assert row["flags"] == []
