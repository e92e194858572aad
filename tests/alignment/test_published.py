"""TextGrid and CTM files of others."""

from __future__ import annotations

from pathlib import Path

import pytest

from slm_plugin.alignment.published import CtmAligner, TextGridAligner, read_ctm, read_textgrid
from slm_plugin.errors import AlignmentError
from slm_plugin.records import WordSpan

LONG = """File type = "ooTextFile"
Object class = "TextGrid"

xmin = 0
xmax = 1.5
tiers? <exists>
size = 2
item []:
    item [1]:
        class = "IntervalTier"
        name = "words"
        xmin = 0
        xmax = 1.5
        intervals: size = 4
        intervals [1]:
            xmin = 0
            xmax = 0.25
            text = ""
        intervals [2]:
            xmin = 0.25
            xmax = 0.75
            text = "red"
        intervals [3]:
            xmin = 0.75
            xmax = 1.25
            text = "dog"
        intervals [4]:
            xmin = 1.25
            xmax = 1.5
            text = ""
    item [2]:
        class = "IntervalTier"
        name = "phones"
        xmin = 0
        xmax = 1.5
        intervals: size = 1
        intervals [1]:
            xmin = 0
            xmax = 1.5
            text = "R"
"""
SHORT = """File type = "ooTextFile"
Object class = "TextGrid"

0
1.5
<exists>
1
"IntervalTier"
"anna - words"
0
1.5
2
0
0.5
"red"
0.5
1.5
"dog"
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    pytest.importorskip("praatio", reason="pip install 'slm-plugin[align]'")
    (tmp_path / "84/121").mkdir(parents=True)
    (tmp_path / "84/121/84-121-0000.TextGrid").write_text(LONG, encoding="utf-8")
    (tmp_path / "84/121/84-121-0001.TextGrid").write_text(SHORT, encoding="utf-8")
    return tmp_path


def test_the_words_of_a_long_textgrid_are_read_without_its_silence(folder: Path):
    found = read_textgrid(folder / "84/121/84-121-0000.TextGrid")
    assert found == (WordSpan("red", 0.25, 0.75), WordSpan("dog", 0.75, 1.25))


def test_a_tier_of_a_speaker_is_found_in_the_short_form_too(folder: Path):
    found = read_textgrid(folder / "84/121/84-121-0001.TextGrid")
    assert found == (WordSpan("red", 0.0, 0.5), WordSpan("dog", 0.5, 1.5))


def test_a_recording_finds_its_file_anywhere_below_the_folder(folder: Path):
    aligner = TextGridAligner(TextGridAligner.Options(path=str(folder)))
    found = aligner.align("84-121-0000", None, 16_000, ["Red", "dog!"], [])
    assert found.words == (WordSpan("Red", 0.25, 0.75), WordSpan("dog!", 0.75, 1.25))
    with pytest.raises(AlignmentError, match=r"there is no 84-121-0009\.TextGrid below"):
        aligner.align("84-121-0009", None, 16_000, ["red"], [])


def test_a_damaged_textgrid_and_a_missing_tier_are_said_by_name(folder: Path):
    with pytest.raises(AlignmentError, match=r"has no tier 'word'\. Did you mean 'words'"):
        read_textgrid(folder / "84/121/84-121-0000.TextGrid", "word")
    (folder / "bad.TextGrid").write_text("nothing", encoding="utf-8")
    with pytest.raises(AlignmentError, match=r"bad\.TextGrid cannot be read"):
        read_textgrid(folder / "bad.TextGrid")


def test_the_fingerprint_follows_the_files(folder: Path):
    before = TextGridAligner(TextGridAligner.Options(path=str(folder))).fingerprint
    (folder / "more.TextGrid").write_text(SHORT, encoding="utf-8")
    assert TextGridAligner(TextGridAligner.Options(path=str(folder))).fingerprint != before


def test_a_ctm_file_holds_the_words_of_many_recordings(tmp_path: Path):
    path = tmp_path / "a.ctm"
    path.write_text(";; made by hand\nx 1 0.50 0.25 dog 0.9\nx 1 0.00 0.50 red\n\ny A 1 2 cat\n", encoding="utf-8")
    assert read_ctm(path) == {
        "x": (WordSpan("red", 0.0, 0.5), WordSpan("dog", 0.5, 0.75)),
        "y": (WordSpan("cat", 1.0, 3.0),),
    }
    aligner = CtmAligner(CtmAligner.Options(path=str(path)))
    assert aligner.align("x", None, 16_000, ["red", "dog"], []).words[1] == WordSpan("dog", 0.5, 0.75)
    with pytest.raises(AlignmentError, match="has no line of z"):
        aligner.align("z", None, 16_000, ["red"], [])


def test_a_line_of_another_form_is_named_by_its_number(tmp_path: Path):
    path = tmp_path / "a.ctm"
    path.write_text("x 1 0.5 0.25 dog\nx one two\n", encoding="utf-8")
    with pytest.raises(
        AlignmentError, match=r"line 2: must be `utterance channel start duration word`, got 'x one two'"
    ):
        read_ctm(path)
