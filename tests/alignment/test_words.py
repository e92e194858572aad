"""Texts in pieces, whatever they are written in."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slm_plugin.alignment.words import Words, has_sound, plain, split_words


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("我爱你。", ("我", "爱", "你。")),
        # words of another script stay whole, with the blank behind them
        ("我爱 Python 编程！", ("我", "爱 ", "Python ", "编", "程！")),
        # a small kana and the long mark are sounded with the one before
        ("きょうはスーパー", ("きょ", "う", "は", "スー", "パー")),
        ("「はい」", ("「は", "い」")),
        # Thai: a vowel before its consonant, marks above
        ("เด็กดี", ("เด็", "ก", "ดี")),
        ("2024年", ("2024", "年")),
    ],
)
def test_a_script_without_blanks_is_cut_into_characters(text: str, pieces: tuple[str, ...]):
    assert split_words(text) == Words(pieces, "")


def test_a_script_with_blanks_is_cut_at_them():
    assert split_words("the  red dog.") == Words(("the", "red", "dog."), " ")
    assert split_words("안녕 세계") == Words(("안녕", "세계"), " ")


def test_a_language_decides_before_the_script_does():
    assert split_words("ok google", "zh-CN") == Words(("ok ", "google"), "")
    assert split_words("das Zeichen 人 heißt Mensch", "de").joiner == " "


@given(st.text("我爱あょーกเ็aB1 .。!「\n", max_size=30), st.sampled_from(["", "zh", "en"]))
def test_joined_pieces_are_the_text_and_each_has_a_sound_where_any_has(text: str, language: str):
    words = split_words(text, language)
    if words.joiner:
        assert words.joiner.join(words.pieces) == " ".join(text.split())
    else:
        assert "".join(words.pieces) == text
        assert all(has_sound(piece) for piece in words.pieces) or len(words.pieces) == 1
    assert all(words.pieces)


def test_words_are_compared_without_case_punctuation_and_width():
    assert plain("Don’t!") == "dont"
    assert plain("ＡＢＣ") == "abc"
    assert plain("Straße") == plain("STRASSE")
    assert plain("...") == ""
