"""Which rows a synthesis keeps."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slm_plugin.generation.protocol import Answer
from slm_plugin.replay_synthesis import filter as reasons
from slm_plugin.replay_synthesis.options import Limits

LIMITS = Limits()


@pytest.mark.parametrize(
    ("written", "limits", "expected"),
    [
        (Answer((1, 2), True), LIMITS, None),
        (Answer((1, 2), False), LIMITS, "no end of answer"),
        (Answer((), True), LIMITS, "too short"),
        (Answer((1, 2), True), Limits(min_tokens=3), "too short"),
        (Answer((1, 2), True), Limits(max_tokens=1), "too long"),
        (Answer((1,), True, -1.5), Limits(min_log_probability=-1.0), "improbable"),
        (Answer((1,), True, -0.5), Limits(min_log_probability=-1.0), None),
    ],
)
def test_end_length_and_probability(written, limits, expected):
    assert reasons.length_problem(written, limits) == expected


@pytest.mark.parametrize(
    ("text", "is_stuck"),
    [
        ("the cat sat on the mat", False),
        ("no " * 8, False),
        ("no " * 9, True),
        ("yes and no, " * 8, False),
        ("yes and no, " * 9, True),
        ("ha" * 25, False),
        ("h" * 41, True),
        ("anna" + "<|3|>" * 150, False),
        ("anna" + "<|3|>" * 151, True),
        # a sung vowel: units that alternate are no fault
        ("anna" + "<|3|><|4|>" * 100, False),
    ],
)
def test_a_model_that_is_stuck_is_noticed(text, is_stuck):
    assert reasons.repetition_problem(text, LIMITS) == ("repetition" if is_stuck else None)


@pytest.mark.parametrize(
    ("spoken", "said", "expected"),
    [
        ("anna<|3|><|7|> sings<|1|>", "Anna sings.", None),
        # a word without frames of its own stands with the next
        ("anna<|3|> does sing<|1|>", "anna does sing", None),
        # silence in front has units of its own
        ("<|9|><|9|>anna<|3|>", "anna", None),
        ("anna<|3|> sings", "anna sings", "malformed interleaving"),
        ("anna sings", "anna sings", "malformed interleaving"),
        ("<|3|><|4|>", "anna", "other words than those to be spoken"),
        ("one two three four<|3|>", "one two three four", "malformed interleaving"),
        ("anna<|3|> sinks<|1|>", "anna sings", "other words than those to be spoken"),
    ],
)
def test_interleaving_has_the_right_words_each_with_units(spoken, said, expected):
    assert reasons.interleaving_problem(spoken, said, LIMITS) == expected


def test_some_word_errors_may_be_allowed():
    # one of two words is wrong: .5
    assert reasons.interleaving_problem("anna<|3|> sinks<|1|>", "anna sings", Limits(max_word_errors=0.5)) is None
    assert reasons.interleaving_problem("anna<|3|> sinks<|1|>", "anna sings", Limits(max_word_errors=0.4)) is not None


def test_duplicates_are_found_whatever_their_case_and_punctuation():
    seen = reasons.Seen(1.0)
    assert seen.add("Where is the cat?") is None
    assert seen.add("where is  the cat") == "duplicate"
    assert seen.add("<|3|><|4|>") is None
    assert seen.add("3 4") is None


def test_near_duplicates_share_most_pieces_of_five_characters():
    # "where is the cat" has 12 pieces, one letter changed at its end changes one: 11 / 13 = .846
    for threshold, expected in ((0.84, "near duplicate"), (0.85, None)):
        seen = reasons.Seen(threshold)
        assert seen.add("where is the cat") is None
        assert seen.add("where is the car") == expected


def test_a_unit_counts_as_one_piece_of_text():
    # 6 units have 2 pieces of five, of which one is shared: 1 / 3
    one, other = "".join(f"<|{u}|>" for u in (1, 2, 3, 4, 5, 6)), "".join(f"<|{u}|>" for u in (1, 2, 3, 4, 5, 7))
    pieces = [reasons.shingles(reasons.normalise(text)) for text in (one, other)]
    assert [len(found) for found in pieces] == [2, 2]
    assert len(pieces[0] & pieces[1]) == 1


@given(seed=st.integers(0, 10_000), threshold=st.sampled_from([0.3, 0.5, 0.7, 0.85, 1.0]))
def test_the_index_finds_what_comparing_everything_finds(seed, threshold):
    draw = random.Random(seed)
    texts = ["".join(draw.choices("ab ", k=draw.randint(1, 14))) for _ in range(30)]
    seen, kept = reasons.Seen(threshold), []
    for text in texts:
        normal = reasons.normalise(text)
        pieces = reasons.shingles(normal)
        if any(normal == other for other, _ in kept):
            expected = "duplicate"
        elif any(len(pieces & found) / len(pieces | found) >= threshold for _, found in kept):
            expected = "near duplicate"
        else:
            expected = None
            kept.append((normal, pieces))
        assert seen.add(text) == expected
