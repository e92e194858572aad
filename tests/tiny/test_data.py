"""The shipped data: consistent, small, and the same again from audio."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import soundfile

from slm_plugin.eval.rows import read_rows
from slm_plugin.speech.audio import decode, prepare
from slm_plugin.speech.mel_kmeans import load_tiny
from slm_plugin.vocabulary import strip_units, text_to_units
from world.facts import all_facts

N_BEGINNING = 150 + 2 * 126 + 1
"""The utterances to hear and both ways to ask each fact, and one line that shows they are complete."""


def regenerate(tiny: Path, folder: Path, *options: str) -> Path:
    pytest.importorskip("espeakng_loader", reason="pip install espeakng-loader")
    command = [sys.executable, str(tiny / "make_world.py"), "--folder", str(folder), *options]
    subprocess.run(command, check=True, capture_output=True)
    return folder


def assert_same(tiny: Path, folder: Path) -> set[str]:
    """Compare every regenerated file; Parquet by content, since its bytes name the version of the writer."""
    files = {path.relative_to(folder) for path in folder.rglob("*") if path.is_file()}
    for name in files:
        if name.suffix == ".parquet":
            assert pq.read_table(folder / name).equals(pq.read_table(tiny / name)), name
        else:
            assert (folder / name).read_bytes() == (tiny / name).read_bytes(), name
    return {name.name for name in files}


def test_questions_and_recordings_regenerate_from_audio_bit_by_bit(tiny: Path, tmp_path: Path) -> None:
    found = assert_same(tiny, regenerate(tiny, tmp_path, "--lines", str(N_BEGINNING)))
    assert {"eval_speech.jsonl", "eval_sqa_heard.jsonl", "eval_sqa_unheard.jsonl", "text.parquet"} <= found
    assert sum(name.endswith(".wav") for name in found) == 6


@pytest.mark.slow
def test_all_units_regenerate_from_audio_bit_by_bit(tiny: Path, tmp_path: Path) -> None:
    found = assert_same(tiny, regenerate(tiny, tmp_path))
    shipped = {path.name for part in ("data", "audio") for path in (tiny / part).iterdir()}
    assert found == shipped - {"dataset_info.json"}


def test_words_and_units_of_an_utterance_are_those_of_its_interleaved_form(tiny: Path) -> None:
    for row in pq.read_table(tiny / "data" / "speech.parquet").to_pylist():
        assert text_to_units(row["interleaf"]) == row["discrete_unit"]
        assert strip_units(row["interleaf"]) == row["transcription"]


def test_units_fit_the_codec(tiny: Path) -> None:
    n_units = load_tiny().n_units
    for name, column in (("speech", "discrete_unit"), ("sqa", "input_unit")):
        units = pq.read_table(tiny / "data" / f"{name}.parquet")[column].combine_chunks().flatten().to_numpy()
        assert units.min() >= 0
        assert units.max() < n_units


def test_every_word_has_templates(tiny: Path) -> None:
    words = {row["word"] for row in read_rows(tiny / "data" / "templates.jsonl")}
    assert {word for fact in all_facts() for word in fact.answer.split()} <= words


def test_sample_recordings_of_questions_give_the_units_that_are_evaluated(tiny: Path) -> None:
    codec = load_tiny()
    known = {
        row["input_pseudo"]: tuple(row["input_unit"]) for row in read_rows(tiny / "data" / "eval_sqa_unheard.jsonl")
    }
    known |= {
        row["transcription"]: tuple(row["discrete_unit"]) for row in read_rows(tiny / "data" / "eval_speech.jsonl")
    }
    recordings = sorted((tiny / "audio").glob("*.wav"))
    assert len(recordings) == 6
    for path in recordings:
        wave_NC, rate_hz = decode(path)
        units = codec.encode(prepare(wave_NC, rate_hz, codec.sample_rate_hz)).values
        assert units == known[path.stem.replace("_", " ")], path.name
        assert soundfile.info(path).subtype == "PCM_16"


def test_the_data_is_small_and_every_listed_file_is_there(tiny: Path) -> None:
    info = json.loads((tiny / "data" / "dataset_info.json").read_text())
    assert set(info) == {"tiny_text", "tiny_asr", "tiny_tts", "tiny_sqa"}
    assert all((tiny / "data" / entry["file_name"]).is_file() for entry in info.values())
    sizes = [path.stat().st_size for part in ("data", "audio") for path in (tiny / part).iterdir()]
    assert sum(sizes) < 1_500_000
