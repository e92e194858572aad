"""BLEU and chrF of written answers."""

from __future__ import annotations

import math

import pytest

from eval.book import Book, score, write

pytest.importorskip("sacrebleu", reason="pip install 'slm-plugin[eval]'")

ROWS = [
    {"input": "one", "output": "the cat sat on the mat today"},
    {"input": "two", "output": ["a dog ran home", "the dog ran home quickly today"]},
]


def test_the_right_words_score_a_hundred_and_other_ones_nothing(registry, tmp_path) -> None:
    file = write(tmp_path / "rows.jsonl", ROWS)
    right = {"one": "the cat sat on the mat today", "two": "the dog ran home quickly today"}
    for metric in ("bleu", "chrf"):
        found = score(registry, "text_similarity", Book(right.get), data=file, metric=metric)
        assert (found.value, found.n, found.better) == (pytest.approx(100), 2, "higher")
        assert found.standard_error == pytest.approx(0, abs=1e-4)
        nothing = score(registry, "text_similarity", Book(lambda _: "zzz"), data=file, metric=metric)
        assert nothing.value == pytest.approx(0, abs=1e-9)


def test_bleu_is_that_of_its_formula(registry, tmp_path) -> None:
    file = write(tmp_path / "rows.jsonl", ROWS[:1])
    found = score(
        registry, "text_similarity", Book(lambda _: "the cat sat on the rug today"), data=file, metric="bleu"
    )
    # of 7, 6, 5 and 4 runs of one to four words 6, 4, 3 and 2 are right; the lengths are equal, so no penalty
    assert found.value == pytest.approx(100 * math.prod([6 / 7, 4 / 6, 3 / 5, 2 / 4]) ** 0.25)
    assert found.standard_error is None
    assert found.items == ()
