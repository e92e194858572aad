"""Where a long row is cut: in an answer, at the end of a word, never in a prompt or between a word and its units."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slm_plugin.data.long_rows import IGNORED, cut_length

UNIT, WORD, PIECE, END = 100, 1, 2, 9


def cut(ids: list[int], n_prompt: int, limit: int) -> int:
    labels = [IGNORED] * n_prompt + ids[n_prompt:]
    return cut_length(ids, labels, limit, lambda token: token >= UNIT, lambda token: token == WORD)


@pytest.mark.parametrize(
    ("limit", "length"),
    [(1, 0), (2, 0), (3, 0), (4, 0), (6, 0), (7, 7), (8, 7), (9, 7), (11, 11)],
)
def test_an_interleaved_answer_is_cut_behind_a_word_s_units(limit: int, length: int):
    prompt, first, second = [0, 0, 0], [WORD, PIECE, UNIT, UNIT], [WORD, PIECE, UNIT, UNIT]
    assert cut([*prompt, *first, *second, END], 3, limit) == length


def test_a_text_is_cut_before_a_word():
    assert [cut([0, WORD, PIECE, WORD, PIECE, PIECE, WORD, END], 1, limit) for limit in range(7)] == [
        0,
        0,
        0,
        3,
        3,
        3,
        6,
    ]


def test_whole_turns_are_kept_if_the_next_prompt_does_not_fit():
    ids = [0, 0, WORD, END, 0, 0, 0, WORD, END]
    labels = [IGNORED, IGNORED, WORD, END, IGNORED, IGNORED, IGNORED, WORD, END]
    for limit in (4, 5, 6, 7):
        assert cut_length(ids, labels, limit, lambda token: False, lambda token: token == WORD) == 4


@given(st.lists(st.sampled_from([UNIT, WORD, PIECE]), min_size=1, max_size=30), st.integers(0, 10), st.data())
def test_a_cut_row_fits_and_keeps_its_prompt(answer: list[int], n_prompt: int, data: st.DataObject):
    ids = [0] * n_prompt + answer
    limit = data.draw(st.integers(0, len(ids) - 1))
    length = cut(ids, n_prompt, limit)
    assert length <= limit
    assert length == 0 or length > n_prompt
    if length:
        assert ids[length] < UNIT
