"""Text chats become spoken questions and answers, by espeak-ng or by a server."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from eval.book import Book, score
from prepare import world
from prepare.fake_speech_server import FakeSpeechServer
from slm_plugin.errors import AudioError, ConfigError, EngineError, SlmError
from slm_plugin.plugins import Registry
from slm_plugin.prepare.voices.endpoint import EndpointVoice
from slm_plugin.prepare.voices.protocol import asking

CHATS = [("What is one plus two?", "It is three."), ("Who sings?", "The red dog sings."), ("Is it so?", "No.")]


@pytest.fixture
def chats(tmp_path: Path) -> Path:
    rows = [{"instruction": question, "response": answer} for question, answer in CHATS]
    path = tmp_path / "chats.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def rows_of(folder: Path) -> list[dict[str, Any]]:
    return [row for path in sorted((folder / "train").glob("*.parquet")) for row in pq.read_table(path).to_pylist()]


def test_espeak_gives_questions_and_answers_with_word_times(
    prepared: Callable[..., Any], chats: Path, tmp_path: Path, registry: Registry
):
    pytest.importorskip("espeakng_loader", reason="pip install espeakng-loader")
    arguments = (f"corpus.chats.path={chats}", "voice.espeak.question_voices=[en-us,en-gb-x-rp]")
    found = prepared(*arguments, "shard_items=2")
    rows = rows_of(tmp_path / "out/set")
    assert [(row["question_text"], row["answer_text"]) for row in rows] == CHATS
    assert all(row["flags"] == ["resampled"] for row in rows)
    starts = [span["start_s"] for span in rows[1]["answer_spans"]]
    assert starts == sorted(starts)
    assert None not in starts
    assert [span["word"] for span in rows[1]["answer_spans"]] == ["The", "red", "dog", "sings."]
    assert {row["speaker"].split(" > ")[1] for row in rows} == {"en-us"}
    sample = registry.stages.get("sqa")().sample(rows[1], 100)
    assert sample.assistant.startswith("Who sings?\n\nThe red dog sings.\n\nThe<|")
    assert found.summary()["utterances"] == 6
    assert "GPL-3" in json.loads((tmp_path / "out/set/card.json").read_text())["licences"]["voice"]
    # espeak-ng carries state from text to text: a shard made alone must not differ
    before = world.tree(tmp_path / "out")
    (tmp_path / "out/set/train/part-00001.parquet").unlink()
    prepared(*arguments, "shard_items=2")
    assert world.tree(tmp_path / "out") == before


def test_a_server_speaks_and_its_words_are_spread(prepared: Callable[..., Any], chats: Path, tmp_path: Path):
    with FakeSpeechServer() as server:
        server.failures = [503]
        prepared(
            f"corpus.chats.path={chats}",
            f"voice.endpoint.url={server.url}",
            "voice.endpoint.question_voices=[echo,nova]",
            "voice.endpoint.model=m",
        )
        asked = [(wish["voice"], wish["input"]) for wish in server.requests]
    rows = rows_of(tmp_path / "out/set")
    assert [row["flags"] for row in rows] == [["even"]] * 3
    expected = [
        pair
        for number, (question, answer) in enumerate(CHATS)
        for pair in ((asking(["echo", "nova"], f"train-{number:08d}"), question), ("alloy", answer))
    ]
    # the first was asked twice, because the first answer was 503
    assert asked == [expected[0], *expected]
    assert server.requests[0]["response_format"] == "wav"
    assert "those of m at" in json.loads((tmp_path / "out/set/card.json").read_text())["licences"]["voice"]


def test_a_text_that_the_server_refuses_is_one_line_of_the_report(
    prepared: Callable[..., Any], chats: Path, tmp_path: Path
):
    with chats.open("a") as file:
        file.write('{"instruction": "unspeakable", "response": "x"}\n')
    with FakeSpeechServer() as server:
        found = prepared(f"corpus.chats.path={chats}", f"voice.endpoint.url={server.url}")
    assert (found.n_rows, found.reasons) == (3, {"speech": 1})
    assert "refuses the text (HTTP 400" in found.dropped[0]["message"]


def test_a_server_that_is_away_stops_the_run_which_goes_on_later(
    prepared: Callable[..., Any], chats: Path, tmp_path: Path
):
    with FakeSpeechServer() as server:
        arguments = (f"corpus.chats.path={chats}", f"voice.endpoint.url={server.url}", "shard_items=1")
        # three texts are spoken (one shard and a half), then whoever asks is refused
        server.failures = [200, 200, 200, 401]
        with pytest.raises(EngineError, match=r"does not speak \(HTTP 401.*goes on where it stopped"):
            prepared(*arguments)
        assert len(list((tmp_path / "out/set/train").glob("*.parquet"))) == 1
        server.requests.clear()
        prepared(*arguments)
        # only the two shards that were missing
        assert len(server.requests) == 4
    assert len(rows_of(tmp_path / "out/set")) == 3


def test_waiting_doubles_and_ends(monkeypatch: pytest.MonkeyPatch):
    waits: list[float] = []
    monkeypatch.setenv("MY_KEY", "secret")
    with FakeSpeechServer() as server:
        options = EndpointVoice.Options(url=server.url + "/", attempts=4, api_key_variable="MY_KEY")
        with EndpointVoice(options, waits.append).session() as speaker:
            server.failures = [500, 429, 503]
            assert len(speaker.say("hi", "alloy").wave_N)
            server.failures = [500] * 4
            with pytest.raises(EngineError, match="HTTP 500"):
                speaker.say("hi", "alloy")
        assert set(server.keys) == {"Bearer secret"}
    assert waits == [1, 2, 4, 1, 2, 4]
    with EndpointVoice(options, waits.append).session() as speaker, pytest.raises(EngineError, match="ConnectError"):
        speaker.say("hi", "alloy")


def test_an_answer_that_is_no_recording_is_the_texts_fault_alone(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(FakeSpeechServer, "sound", staticmethod(lambda wish: b"not sound"))
    with FakeSpeechServer() as server:
        session = EndpointVoice(EndpointVoice.Options(url=server.url)).session()
        with session as speaker, pytest.raises(AudioError, match="cannot be read"):
            speaker.say("hi", "alloy")


def test_a_voice_that_espeak_does_not_have_is_refused_before_anything_is_spoken(
    prepared: Callable[..., Any], chats: Path, tmp_path: Path
):
    pytest.importorskip("espeakng_loader", reason="pip install espeakng-loader")
    with pytest.raises(SlmError, match="espeak-ng has no voice 'klingonese'"):
        prepared(f"corpus.chats.path={chats}", "voice.espeak.question_voices=[klingonese]")
    assert not (tmp_path / "out").exists()


def test_chats_without_a_voice_are_refused(prepared: Callable[..., Any], chats: Path):
    with pytest.raises(ConfigError, match="text chats are spoken by one of: endpoint, espeak"):
        prepared(f"corpus.chats.path={chats}")


SHORT = [
    {"instruction": "What is the capital?", "response": "It is Amsterdam.", "answer": "Amsterdam"},
    {"instruction": "How many?", "response": "There are three.", "answer": {"value": "3", "aliases": ["three"]}},
    {"instruction": "How many?", "response": "There are three.", "answer": 3},
    {"conversations": [{"from": "human", "value": "Who?"}, {"from": "gpt", "value": "Anna does."}], "answer": "Anna"},
    {"instruction": "Is it so?", "response": "No."},
    {"instruction": "Is it so?", "answer": "No, it is not."},
]


def test_a_short_answer_stands_beside_the_spoken_one(prepared: Callable[..., Any], tmp_path: Path, registry: Registry):
    path = tmp_path / "chats.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in SHORT), encoding="utf-8")
    rows = []
    for number, chat in enumerate(SHORT):
        path.write_text(json.dumps(chat) + "\n", encoding="utf-8")
        with FakeSpeechServer() as server:
            keys = (f"corpus.chats.path={path}", f"voice.endpoint.url={server.url}")
            prepared(*keys, f"name=set{number}")
        rows += rows_of(tmp_path / f"out/set{number}")
    found = [(row["answer"], row["answers"], "answer_not_spoken" in row["flags"]) for row in rows]
    assert found == [
        ("Amsterdam", None, False),
        ("3", ["3", "three"], False),
        ("3", None, True),
        ("Anna", None, False),
        (None, None, False),
        (None, None, False),
    ]
    # what is trained on is the spoken text
    sample = registry.stages.get("sqa")().sample(rows[0], 100)
    assert sample.assistant.startswith("What is the capital?\n\nIt is Amsterdam.\n\n")
    card = (tmp_path / "out/set2/README.md").read_text(encoding="utf-8")
    assert "| answer_not_spoken | 1 |" in card
    assert "None" not in card


def test_prepared_chats_are_scored_by_their_short_answers(
    prepared: Callable[..., Any], tmp_path: Path, registry: Registry
):
    path = tmp_path / "chats.jsonl"
    path.write_text(json.dumps(SHORT[0]) + "\n", encoding="utf-8")
    with FakeSpeechServer() as server:
        prepared(f"corpus.chats.path={path}", f"voice.endpoint.url={server.url}")
    file = str(tmp_path / "out/set/train/part-00000.parquet")
    book = Book(lambda _: "What is the capital?\n\nI think that it is Amsterdam.\n\nx<|1|>")
    assert score(registry, "spoken_qa", book, data=file).value == 1.0


def test_a_short_answer_that_is_asked_for_must_be_there(prepared: Callable[..., Any], chats: Path):
    keys = (f"corpus.chats.path={chats}", "corpus.chats.short_answer=gold", "voice.endpoint.url=http://127.0.0.1:9")
    with pytest.raises(SlmError, match="has no column 'gold'"):
        prepared(*keys)
