"""Every form of corpus gives its items, and what is wrong with one is said of that one alone."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
import soundfile

from prepare import world
from slm_plugin.errors import DataError
from slm_plugin.plugins import Registry
from slm_plugin.prepare.corpora.protocol import ChatItem, Item, SpokenItem, Unusable
from slm_plugin.strict import parse


def corpus(registry: Registry, form: str, **options: Any) -> Any:
    kind = registry.corpora.get(form)
    return kind(parse(kind.Options, options, form))


def items(found: Any) -> list[Item]:
    return [found[index] for index in range(len(found))]


def test_librispeech_gives_names_speakers_and_texts_in_order(registry: Registry, tmp_path: Path):
    found = items(corpus(registry, "librispeech", path=str(world.librispeech(tmp_path)), case="sentence"))
    assert [item.name for item in found[:2]] == ["1272-121-0000", "1272-121-0002"]
    assert {item.speaker for item in found} == {"84", "1272"}
    assert found[0].text == "The red dog sings"
    assert Path(found[0].audio).is_file()


def test_librispeech_reports_a_recording_without_text_and_a_text_without_recording(registry: Registry, tmp_path: Path):
    root = world.librispeech(tmp_path, 2)
    world.write_wave(root / "84/121/84-121-0007.flac", 7)
    (root / "1272/121/1272-121-0000.flac").unlink()
    found = {item.name: item for item in items(corpus(registry, "librispeech", path=str(root)))}
    assert found["84-121-0007"].reason == "no_text"
    assert found["1272-121-0000"].reason == "no_audio"
    assert isinstance(found["84-121-0001"], SpokenItem)


def test_common_voice_reads_its_tsv_with_quotation_marks_as_text(registry: Registry, tmp_path: Path):
    (tmp_path / "de").mkdir()
    (tmp_path / "de/dev.tsv").write_text(
        'client_id\tpath\tsentence\tlocale\nabc\ta.mp3\tEr sagt "ja\tde\nabd\tb.mp3\tnein\tde\n', encoding="utf-8"
    )
    found = items(corpus(registry, "common_voice", path=str(tmp_path / "de"), split="dev"))
    first = SpokenItem("a", str(tmp_path / "de/clips/a.mp3"), 'Er sagt "ja', "abc", "de")
    assert found[0] == first
    with pytest.raises(DataError, match=r"has no split 'devel'\. Did you mean 'dev'"):
        corpus(registry, "common_voice", path=str(tmp_path / "de"), split="devel")


def test_ljspeech_takes_the_normalised_text_and_reports_a_line_without_any(registry: Registry, tmp_path: Path):
    (tmp_path / "metadata.csv").write_text(
        'LJ001-0001|In 1465 "print"|In fourteen "print"\nLJ001-0002|alone\nbroken\n', encoding="utf-8"
    )
    found = items(corpus(registry, "ljspeech", path=str(tmp_path)))
    assert [getattr(item, "text", item) for item in found[:2]] == ['In fourteen "print"', "alone"]
    assert isinstance(found[2], Unusable)
    raw = items(corpus(registry, "ljspeech", path=str(tmp_path), normalised=False))
    assert raw[0].text == 'In 1465 "print"'


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".parquet"])
def test_a_table_of_any_kind_gives_the_same_items(suffix: str, registry: Registry, tmp_path: Path):
    rows = [{"file": "a.wav", "said": 'yes, "sure"', "who": "anna"}, {"file": "", "said": "x", "who": "bob"}]
    path = tmp_path / f"list{suffix}"
    if suffix == ".parquet":
        import pyarrow
        import pyarrow.parquet

        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    elif suffix == ".jsonl":
        path.write_text("\n".join(json.dumps(row) for row in rows) + "\n\n", encoding="utf-8")
    else:
        separator = "," if suffix == ".csv" else "\t"
        lines = [["file", "said", "who"], ["a.wav", '"yes, ""sure"""', "anna"], ["", "x", "bob"]]
        path.write_text("\ufeff" + "\n".join(separator.join(line) for line in lines) + "\n", encoding="utf-8")
    found = items(corpus(registry, "table", path=str(path), audio="file", text="said", speaker="who", language="en"))
    assert found[0] == SpokenItem("a.wav", str(tmp_path / "a.wav"), 'yes, "sure"', "anna", "en")
    assert found[1].reason == "no_audio"


def test_a_name_that_comes_twice_is_reported_and_a_missing_column_is_refused(registry: Registry, tmp_path: Path):
    path = tmp_path / "list.csv"
    path.write_text("audio,text\na.wav,x\na.wav,y\n", encoding="utf-8")
    found = items(corpus(registry, "table", path=str(path)))
    assert (found[1].name, found[1].reason) == ("a.wav#2", "duplicate")
    with pytest.raises(DataError, match=r"has no column 'txt'\. Did you mean 'text'.*corpus\.table\.text=NAME"):
        corpus(registry, "table", path=str(path), text="txt")
    path.write_text("audio,text\n", encoding="utf-8")
    with pytest.raises(DataError, match="has no items"):
        corpus(registry, "table", path=str(path))


def test_a_folder_that_moved_has_the_same_fingerprint_and_another_text_another(registry: Registry, tmp_path: Path):
    first = corpus(registry, "librispeech", path=str(world.librispeech(tmp_path / "a"))).fingerprint
    assert corpus(registry, "librispeech", path=str(world.librispeech(tmp_path / "b"))).fingerprint == first
    with (tmp_path / "b/84/121/84-121.trans.txt").open("a") as file:
        file.write("84-121-0009 MORE\n")
    assert corpus(registry, "librispeech", path=str(tmp_path / "b")).fingerprint != first


def audio_rows(tmp_path: Path) -> Path:
    """Rows with encoded recordings, as the hub has them."""
    import datasets

    buffer = io.BytesIO()
    soundfile.write(buffer, world.wave(1), 16_000, format="FLAC")
    rows = {
        "audio": [{"bytes": buffer.getvalue(), "path": "a.flac"}, None],
        "text": ["red", "dog"],
        "who": ["anna", "bob"],
    }
    features = datasets.Features(
        {
            "audio": datasets.Audio(sampling_rate=16_000),
            "text": datasets.Value("string"),
            "who": datasets.Value("string"),
        }
    )
    datasets.Dataset.from_dict(rows, features=features).to_parquet(tmp_path / "rows.parquet")
    return tmp_path / "rows.parquet"


def test_an_audio_column_of_the_hub_stays_encoded(registry: Registry, tmp_path: Path):
    found = items(corpus(registry, "hub", path=str(audio_rows(tmp_path)), speaker="who"))
    assert found[0].audio["bytes"][:4] == b"fLaC"
    assert (found[0].name, found[0].text, found[0].speaker) == ("train-00000000", "red", "anna")
    assert found[1].reason == "no_audio"
    with pytest.raises(DataError, match="has no column 'sentence'"):
        corpus(registry, "hub", path=str(tmp_path / "rows.parquet"), text="sentence")
    with pytest.raises(DataError, match="cannot be loaded"):
        corpus(registry, "hub", path=str(tmp_path / "nothing.parquet"))


@pytest.mark.parametrize(
    "row",
    [
        {"input": "Hi?", "output": "Yes."},
        {"instruction": "Hi?", "response": "Yes."},
        {"conversations": [{"from": "system", "value": "s"}, {"from": "human", "value": "Hi?"},
                           {"from": "gpt", "value": "Yes."}]},
        {"messages": [{"role": "user", "content": "Hi?"}, {"role": "assistant", "content": "Yes."}]},
    ],
)  # fmt: skip
def test_chats_are_read_in_every_known_form(row: dict[str, Any], registry: Registry, tmp_path: Path):
    path = tmp_path / "chats.jsonl"
    path.write_text(json.dumps(row) + "\n", encoding="utf-8")
    (found,) = items(corpus(registry, "chats", path=str(path)))
    assert found == ChatItem("train-00000000", "Hi?", "Yes.", "en")


def test_chats_that_nobody_would_say_are_reported_with_the_reason(registry: Registry, tmp_path: Path):
    rows = [
        {"input": "a", "output": "b", "task_category": "Math"},
        {"input": "a", "output": "", "task_category": "Info"},
        {"input": "a" * 11, "output": "b", "task_category": "Info"},
        {"input": "a", "output": "b", "task_category": "Info"},
    ]
    path = tmp_path / "chats.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    found = items(corpus(registry, "chats", path=str(path), max_question_characters=10))
    assert [getattr(item, "reason", None) for item in found] == ["category", "no_text", "too_long", None]
    assert len(corpus(registry, "chats", path=str(path), n=2)) == 2
