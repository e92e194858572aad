"""Which answers are right: a table of answers, right answers and verdicts for every matcher and normaliser."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eval.book import Book, score, write
from slm_plugin.eval.match import Match, matches
from slm_plugin.eval.normalise import Normalisation, normaliser
from slm_plugin.plugins import Registry

ALL: tuple[Normalisation, ...] = ("case", "punctuation", "english")
RIGHT = [
    # punctuation at the edge of a word, of any kind
    ("The capital of the Netherlands is Amsterdam.", "Amsterdam", ALL),
    ("It is \u201cAmsterdam\u201d!", "Amsterdam", ALL),
    ("\u00ab Amsterdam \u00bb?", "Amsterdam", ALL),
    ("**Amsterdam** (in the Netherlands)", "amsterdam", ALL),
    ("(Amsterdam)", "Amsterdam", ALL),
    ("Amsterdam\u2014the capital", "Amsterdam", ALL),
    ("red,blue;green", "blue", ALL),
    ("Amsterdam\u200b.", "Amsterdam", ALL),
    # hyphens
    ("twenty-one", "twenty one", ALL),
    ("twenty one", "twenty-one", ALL),
    ("It was 1914\u20131918.", "1914-1918", ALL),
    ("It is 21.", "twenty-one", ("english",)),
    # apostrophes, straight and curly
    ("It\u2019s the dog\u2019s bone.", "it's", ALL),
    ("It\u2019s the dog\u2019s bone.", "the dog's", ALL),
    ("the dog's bone", "dog", ALL),
    ("the dogs' bones", "dogs", ALL),
    ("It\u2019s red", "it is red", ("english",)),
    ("la ville d\u2019Amsterdam", "Amsterdam", ("case", "punctuation")),
    # numbers
    ("It is 1,000.", "1000", ALL),
    ("1000", "1,000", ALL),
    ("1,000, or so", "1000", ALL),
    ("It is 3.5.", "3.5", ALL),
    ("It is .5", "0.5", ("case",)),
    ("5 %.", "5%", ALL),
    ("5%", "5", ALL),
    ("five percent", "5%", ("english",)),
    ("$1,000", "1000", ALL),
    ("\u22125 degrees", "-5", ALL),
    ("minus five", "-5", ("english",)),
    ("one, two, three", "two", ALL),
    # diacritics, composed and decomposed
    ("Caf\u00e9.", "cafe\u0301", ALL),
    ("cafe", "caf\u00e9", ("english",)),
    # full-width forms, ligatures and other encodings of the same letters
    ("\uff21\uff4d\uff53\uff54\uff45\uff52\uff44\uff41\uff4d\u3002", "Amsterdam", ALL),
    ("\ufb01sh", "fish", ALL),
    ("Stra\u00dfe", "STRASSE", ("case",)),
    # other scripts
    ("Столица \u2014 Москва.", "москва", ALL),
    ("الجواب هو القاهرة،", "القاهرة", ALL),
    ("राजधानी दिल्ली है।", "दिल्ली", ("case", "punctuation")),
    ("中国的首都是北京。", "北京", ALL),
    ("ローマです。", "ローマ", ("case", "punctuation")),
    ("수도는 암스테르담입니다.", "암스테르담", ("case", "punctuation")),
    # a right answer without a word
    ("5 + 3", "+", ALL),
    ("C++.", "c++", ALL),
    ("Paris", "Paris (France)", ("punctuation", "english")),
]
WRONG = [
    ("Amsterdamned", "Amsterdam", ALL),
    ("twenty-one", "one", ("case", "english")),
    ("hundred-twenty-one", "twenty-one", ("case",)),
    ("It is 21", "twenty-one", ("case", "punctuation")),
    ("New-York", "York", ("case", "punctuation")),
    ("don't know", "don", ALL),
    ("the dogs", "dog", ALL),
    ("the dog", "dog's", ALL),
    ("O'Brien", "Brien", ("case", "punctuation")),
    ("1,000", "1", ALL),
    ("1,000", "000", ALL),
    ("3.5", "5", ALL),
    ("3.5", "3", ALL),
    (".5", "5", ("case",)),
    ("-5", "5", ALL),
    ("5", "5%", ("case", "english")),
    ("100", "10", ALL),
    ("10\u00b2", "102", ("case",)),
    ("cafe", "caf\u00e9", ("case", "punctuation")),
    ("की", "कि", ("case", "punctuation")),
    ("中国的首都是北京。", "上海", ALL),
    ("ローマ", "ロマ", ("case", "punctuation")),
    ("C++", "C", ("case",)),
    # an empty right answer matches nothing
    ("anything", "", ALL),
    ("", "", ALL),
    ("anything", " ", ALL),
    ("anything", "...", ALL),
    ("", "Amsterdam", ALL),
]


def cases(table: list[tuple[str, str, tuple[Normalisation, ...]]]) -> list[tuple[str, str, Normalisation]]:
    return [(answer, right, name) for answer, right, names in table for name in names]


@pytest.mark.parametrize(("answer", "right", "name"), cases(RIGHT))
def test_an_answer_contains_a_right_one(answer: str, right: str, name: Normalisation) -> None:
    assert matches(answer, ["something else", right], "contains", name)


@pytest.mark.parametrize(("answer", "right", "name"), cases(WRONG))
def test_an_answer_contains_no_right_one(answer: str, right: str, name: Normalisation) -> None:
    assert not matches(answer, [right], "contains", name)


@pytest.mark.parametrize(
    ("answer", "right", "expected"),
    [
        ("Amsterdam.", "Amsterdam", True),
        ("\u201cred,  Dog\u201d", "Red dog", True),
        ("It\u2019s 1,000.", "it's 1000", True),
        ("a red dog here", "Red dog", False),
        ("dog red", "Red dog", False),
        ("5 < 7", "5 > 7", False),
        ("?", "?", True),
        ("", "?", False),
    ],
)
def test_an_exact_answer_has_the_words_of_a_right_one_and_no_more(answer: str, right: str, expected: bool) -> None:
    assert matches(answer, [right], "exact") is expected


TEXTS = st.text(st.sampled_from("ab1 .,-'\u2019%$()[]<>é中ー\u0301"), min_size=1, max_size=12).filter(str.strip)


@given(TEXTS, st.sampled_from(ALL), st.sampled_from(("exact", "contains")))
def test_every_answer_is_right_for_itself(text: str, name: Normalisation, how: Match) -> None:
    assert matches(text, [text], how, name)


@given(st.lists(st.sampled_from(["red", "dog", "it's", "twenty-one", "1,000", "3.5", "café"]), min_size=1, max_size=4))
def test_words_are_found_inside_a_sentence(words: list[str]) -> None:
    text = " ".join(words)
    for name in ("case", "punctuation"):
        assert matches(f"Well, it is \u201c{text}\u201d!", [text], "contains", name)
        assert not matches(f"Wellx{text}x!", [text], "contains", name)


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        # what error rates compare
        ("case", "It\u2019s \uff21 \u201ctest\u201d", 'it\'s a "test"'),
        ("case", "cafe\u0301", "caf\u00e9"),
        ("punctuation", "1,000 dogs, 3.5% and \u22125 on 28.11.2026", "1000 dogs 3.5 and -5 on 28 11 2026"),
        ("punctuation", "दिल्ली है।", "दिल्ली है"),
        ("english", "It\u2019s 1,000", "it is 1000"),
        ("english", "-5", "-5"),
    ],
)
def test_encodings_and_numbers_are_brought_into_one_form(name: Normalisation, text: str, expected: str) -> None:
    assert normaliser(name)(text) == expected


NUMBERS = "one oh twenty third hundred thousand million and a half point double minus dollars cents percent 3 4.5 $ %"


@given(st.lists(st.sampled_from(NUMBERS.split()), max_size=8))
def test_no_spelling_of_a_number_stops_a_scoring(words: list[str]) -> None:
    text = " ".join(words)
    assert matches(text, [text], "contains", "english") is bool(text)


def test_the_published_pipelines_score_a_sentence_by_the_word_in_it(registry: Registry, tmp_path: Path) -> None:
    file = write(tmp_path / "qa.jsonl", [{"input": "capital?", "output": "Amsterdam"}])
    sentence = Book(lambda _: "The capital of the Netherlands is Amsterdam.")
    assert score(registry, "text_match", sentence, data=file, match="contains").value == 1.0
    assert score(registry, "text_match", Book(lambda _: "Amsterdamned"), data=file, match="contains").value == 0.0
    assert score(registry, "text_match", Book(lambda _: "Amsterdam."), data=file).value == 1.0
