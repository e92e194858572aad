"""The page of the review: every question once, and a sentence wherever the answer is not yes."""

import re
from pathlib import Path


def test_every_question_has_a_score_and_every_low_one_a_sentence(root: Path):
    page = (root / "docs/review.md").read_text(encoding="utf-8")
    scores = {
        int(number): int(score) for number, score in re.findall(r"^\| (\d+) \|.*\| ([012]) \|$", page, re.MULTILINE)
    }
    assert sorted(scores) == list(range(1, 23))
    explained = {int(number) for number in re.findall(r"^(\d+): \w", page, re.MULTILINE)}
    assert explained == {number for number, score in scores.items() if score < 2}
