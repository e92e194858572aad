"""Recorded questions in the form of the published sets, with recordings of the tiny world."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import datasets
import pytest

from eval.book import Book, score
from slm_plugin.data.recordings import recording_units
from slm_plugin.errors import ConfigError, DataError, VocabularyError
from slm_plugin.eval.rows import read_rows
from slm_plugin.plugins import Registry
from slm_plugin.speech.codecs import load_codec
from slm_plugin.vocabulary import UnitVocabulary, units_to_text

ASKED = {
    "what_is_zero_plus_seven": "seven",
    "what_is_zero_plus_three": "three",
    "what_is_the_job_of_david": "pilot",
    "what_is_the_job_of_victor": "farmer",
}
FORMS: dict[str, tuple[str, str, str, Any]] = {
    "llama-questions": ("test", "audio", "answer", lambda right: right.capitalize()),
    "spoken-web-questions": ("test", "audio", "answers", lambda right: ["another", right]),
    "trivia_qa-audio": ("validation", "question_audio", "answer", lambda right: {"value": "x", "aliases": [right]}),
}


@pytest.fixture(scope="module")
def recordings(root: Path) -> dict[str, bytes]:
    return {name: (root / f"examples/tiny/audio/{name}.wav").read_bytes() for name in ASKED}


@pytest.fixture(scope="module")
def questions(recordings: dict[str, bytes], registry: Registry) -> dict[str, str]:
    """What is asked in the units of each recording."""
    codec = load_codec("tiny", registry)
    return {units_to_text(recording_units(wav, codec)): name for name, wav in recordings.items()}


def write_set(folder: Path, form: str, recordings: dict[str, bytes]) -> str:
    split, audio, answer, spell = FORMS[form]
    rows = {
        "question": [f"{name.replace('_', ' ').capitalize()}?" for name in recordings],
        audio: [{"bytes": wav, "path": None} for wav in recordings.values()],
        answer: [spell(ASKED.get(name, "")) for name in recordings],
    }
    table = datasets.Dataset.from_dict(rows).cast_column(audio, datasets.Audio(decode=False))
    (folder / "data").mkdir(parents=True)
    table.cast_column(audio, datasets.Audio()).to_parquet(folder / f"data/{split}-00000-of-00001.parquet")
    return str(folder)


def knows(questions: dict[str, str], wrong: str = "") -> Book:
    """A model that hears everything and answers in a sentence; one question it answers wrong."""

    def answer(prompt: str) -> str:
        name = questions[prompt]
        right = "nothing" if name == wrong else ASKED[name]
        return f"{name.replace('_', ' ')}\n\nWell, it is {right}!\n\n{right}<|1|>"

    return Book(answer)


@pytest.mark.parametrize("form", FORMS)
def test_every_published_form_is_taken_as_it_is(form, tmp_path, recordings, questions, registry) -> None:
    data = write_set(tmp_path / form, form, recordings)
    right = score(registry, "spoken_questions", knows(questions), data=data, codec="tiny")
    assert (right.value, right.n, right.better, dict(right.notes)) == (1.0, 4, "higher", {"question_wer": 0.0})
    three = score(registry, "spoken_questions", knows(questions, "what_is_zero_plus_three"), data=data, codec="tiny")
    assert three.value == 0.75
    assert [item[0] for item in three.items] == [float(name != "what_is_zero_plus_three") for name in ASKED]


def test_a_spoken_answer_is_scored_by_what_is_heard(tmp_path, recordings, questions, registry, root) -> None:
    data = write_set(tmp_path / "set", "spoken-web-questions", recordings)
    templates = root / "examples/tiny/data/templates.jsonl"
    spoken = {row["word"]: units_to_text(row["units"]) for row in read_rows(templates)}
    judge = {"codec": "tiny", "speech": True, "templates": str(templates)}
    sums = {name: right for name, right in ASKED.items() if "plus" in name}

    def aloud(prompt: str) -> str:
        right = sums.get(questions[prompt], "")
        return f"x\n\nwrong\n\n{right}{spoken.get(right, '')}"

    found = score(registry, "spoken_questions", Book(aloud), data=data, **judge)
    assert found.value == 0.5
    assert found.examples[0]["answer"].endswith("(heard: seven)")


def test_a_recording_that_cannot_be_used_counts_as_answered_wrong(tmp_path, recordings, questions, registry) -> None:
    data = write_set(tmp_path / "set", "llama-questions", {**recordings, "broken": b"no recording"})
    # five rows would need an answer for "broken" too
    rows = datasets.load_dataset(data, split="test").cast_column("audio", datasets.Audio(decode=False)).to_list()
    rows[-1]["answer"] = "anything"
    table = datasets.Dataset.from_list(rows).cast_column("audio", datasets.Audio())
    table.to_parquet(tmp_path / "set/data/test-00000-of-00001.parquet")
    book = knows(questions)
    found = score(registry, "spoken_questions", book, data=data, codec="tiny")
    assert (found.value, found.n, found.notes["unusable"]) == (0.8, 5, pytest.approx(0.2))
    assert len(book.asked) == 4
    only = datasets.Dataset.from_list(rows[-1:])
    only.to_parquet(tmp_path / "only.parquet")
    with pytest.raises(DataError, match="no recording that can be used"):
        score(registry, "spoken_questions", book, data=str(tmp_path / "only.parquet"), codec="tiny")


def test_mistakes_are_told(tmp_path, recordings, registry) -> None:
    data = write_set(tmp_path / "set", "llama-questions", recordings)
    with pytest.raises(ConfigError, match="recordings need a codec"):
        score(registry, "spoken_questions", Book(str), data=data)
    with pytest.raises(ConfigError, match="with either templates or whisper"):
        score(
            registry, "spoken_questions", Book(str), data=data, codec="tiny", speech=True, templates="t", whisper="w"
        )
    with pytest.raises(VocabularyError, match="the model has 50 units, the codec 'tiny' has 100"):
        score(registry, "spoken_questions", Book(str, UnitVocabulary(0, 50)), data=data, codec="tiny")
    datasets.Dataset.from_list([{"question": "x", "answer": "y"}]).to_parquet(tmp_path / "none.parquet")
    with pytest.raises(DataError, match=r"a row needs the column 'audio' or 'question_audio'; it has: answer"):
        score(registry, "spoken_questions", Book(str), data=str(tmp_path / "none.parquet"), codec="tiny")
