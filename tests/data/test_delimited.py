"""Tables of users: encodings and delimiters are guessed, and the guess is reported."""

from __future__ import annotations

from pathlib import Path

import pytest

from slm_plugin.data.delimited import guess_delimiter, read_text, rows
from slm_plugin.data.tables import open_table
from slm_plugin.errors import DataError

GERMAN = "Übermäßig schöne Grüße, Bär"


@pytest.mark.parametrize(
    ("text", "encoding", "found"),
    [
        (GERMAN, "utf-8", "utf-8"),
        (GERMAN, "utf-8-sig", "utf-8-sig"),
        (GERMAN, "utf-16", "utf-16"),
        (GERMAN, "utf-32", "utf-32"),
        # without a byte-order mark
        (GERMAN, "utf-16-le", "utf-16-le"),
        (GERMAN, "utf-16-be", "utf-16-be"),
        ("plain ASCII", "utf-16-le", "utf-16-le"),
        # the printable part of Latin-1 is the same in cp1252
        (GERMAN, "latin-1", "cp1252"),
        ("It\u2019s \u201cfine\u201d", "cp1252", "cp1252"),
        ("\u017ca\u017c\u00f3\u0142\u0107 g\u0119\u015bl\u0105 ja\u017a\u0144", "cp1250", "cp1250"),
        ("\u043f\u043e\u0437\u0434\u043d\u043e \u0432\u0435\u0447\u0435\u0440\u043e\u043c " * 9, "koi8_r", "koi8_r"),
        ("\u3053\u308c\u306f\u65e5\u672c\u8a9e\u3067\u3059", "shift_jis", "shift_jis"),
        ("\u4eca\u5929\u5929\u6c14\u5f88\u597d", "gb18030", "gb18030"),
    ],
)
def test_a_text_comes_out_as_it_was_written(text: str, encoding: str, found: str, tmp_path: Path):
    path = tmp_path / "list.csv"
    path.write_bytes(f"file,text\r\na.wav,{text}\r\n".encode(encoding))
    file = read_text(path)
    assert file.encoding == found
    assert file.lines() == ["file,text", f"a.wav,{text}"]
    assert bool(file.note) == (not found.startswith("utf-8"))
    if file.note:
        assert found in file.note


def test_a_given_encoding_is_taken_and_a_wrong_one_refused_with_the_place(tmp_path: Path):
    path = tmp_path / "list.csv"
    path.write_bytes("é".encode("latin-1"))
    assert read_text(path, "latin-1").text == "é"
    with pytest.raises(DataError, match=r"list\.csv, byte 0: is not utf-8"):
        read_text(path, "utf-8")
    with pytest.raises(DataError, match=r"no encoding is called 'latin_one'.*latin-1"):
        read_text(path, "latin_one")
    with pytest.raises(DataError, match=r"cannot be read \(No such file"):
        read_text(tmp_path / "nothing.csv")


@pytest.mark.parametrize(
    ("text", "columns", "mark"),
    [
        ("audio,text\na,b\n", ("audio", "text"), ","),
        ("audio;text\na;b, c, d\n", ("audio", "text"), ";"),
        ("audio\ttext\na\tb; c, d\n", ("audio", "text"), "\t"),
        ("audio|text\na|b\n", ("audio", "text"), "|"),
        ('"audio";"text, spoken"\na;b\n', ("audio", "text, spoken"), ";"),
        # none of the columns is there: what the table is is said by the error that follows
        ("datei;wort\na;b\nc;d\n", ("audio", "text"), ";"),
        ("alone\na\n", ("audio",), ","),
        ("file,text;more\n", (), ","),
        ("file;text\n", (), ";"),
    ],
)
def test_the_delimiter_is_the_one_that_gives_the_columns(text: str, columns: tuple[str, ...], mark: str):
    assert guess_delimiter(text, columns, ",") == mark


def test_lines_within_quotation_marks_and_unusual_line_ends_are_text(tmp_path: Path):
    path = tmp_path / "list.csv"
    path.write_bytes('sep=;\r\naudio;text\r\na;"one\u2028two\x85\nthree"\r\n'.encode())
    found, mark = rows(read_text(path), ("audio",))
    assert (list(found), mark) == ([{"audio": "a", "text": "one\u2028two\x85\nthree"}], ";")


def test_a_csv_file_of_text_rows_is_opened_in_the_same_way(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    path = tmp_path / "chats.csv"
    path.write_bytes(f"input;output\nHi;{GERMAN}\n".encode("latin-1"))
    assert open_table(str(path))[0] == {"input": "Hi", "output": GERMAN}
    assert "read as cp1252 with fields separated by semicolon (guessed)" in caplog.text
