"""What is true in the tiny world, and what is held out."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq

from world import text
from world.facts import all_facts
from world.script import lines
from world.words import PEOPLE, SPOKEN, VALUES


def test_the_world_has_93_spoken_words_and_126_facts() -> None:
    assert len(SPOKEN) == 93
    # 12 people x 5 attributes, and sums a + b <= 10: 11 + 10 + ... + 1
    assert Counter(fact.kind for fact in all_facts()) == {"grid": 60, "sum": 66}


def test_every_person_and_every_attribute_loses_some_cells_and_keeps_more() -> None:
    grid = [fact for fact in all_facts() if fact.kind == "grid"]
    for word in (*PEOPLE, *VALUES):
        cells = [fact for fact in grid if word in fact.questions[0].split()]
        held_out = sum(fact.held_out for fact in cells)
        assert 0 < held_out < len(cells) / 2, word


def test_every_word_of_a_held_out_fact_is_heard_in_training(tiny: Path) -> None:
    heard = {word for row in rows(tiny, "speech") for word in row["transcription"].split()}
    for fact in all_facts():
        if fact.held_out:
            assert {*fact.questions[0].split(), fact.answer} <= heard, fact


def test_no_held_out_fact_is_asked_aloud_in_training_and_every_other_is(tiny: Path) -> None:
    asked = {row["input_pseudo"] for row in rows(tiny, "sqa")}
    for fact in all_facts():
        for question in fact.questions:
            assert (question in asked) != fact.held_out, question


def test_answers_are_the_facts(tiny: Path) -> None:
    answers = {question: fact.answer for fact in all_facts() for question in fact.questions}
    assert answers["what is three plus four"] == "seven"
    assert all(answers[row["input_pseudo"]] == row["output_pseudo"] for row in rows(tiny, "sqa"))
    text_rows = [row for row in rows(tiny, "text") if row["input"] in answers]
    assert all(answers[row["input"]] == row["output"] for row in text_rows)
    # a share of .3 of 20,000 rows, give or take five standard deviations of 65
    assert abs(len(text_rows) / len(rows(tiny, "text")) - text.FACT_SHARE) < 0.017


def test_instructions_do_what_they_say() -> None:
    rng = random.Random(0)
    found = set()
    for _ in range(300):
        row = text.instruction(rng)
        job, words = row["input"].split(" : ")
        said, answer = words.split(), row["output"].split()
        expected = {"repeat": said, "reverse": said[::-1], "last of": said[-1:], "first of": said[:1]}[job]
        assert answer == expected
        found.add(job)
    assert found == {"repeat", "reverse", "last of", "first of"}


def test_evaluation_instructions_are_not_among_the_training_rows() -> None:
    seen = {row["input"] for row in text.mixture(all_facts(), 2_000, random.Random(0))}
    unseen = text.unseen_instructions(seen, 50, random.Random(0))
    assert len(unseen) == 50
    assert not seen & {row["input"] for row in unseen}


def test_a_longer_script_begins_like_a_shorter_one_and_parts_do_not_mix() -> None:
    script = lines(all_facts())
    assert script == lines(all_facts())
    order = list(dict.fromkeys(line.part for line in script))
    assert order == ["heard", "asked", "template", "utterance", "question", "answer"]
    # the synthesiser gives no time for "the" in "of the"
    assert not any("of the" in line.text for line in script)


def rows(tiny: Path, name: str) -> list[dict[str, str]]:
    return pq.read_table(tiny / "data" / f"{name}.parquet").to_pylist()
