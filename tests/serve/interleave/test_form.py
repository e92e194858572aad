import pytest
from hypothesis import given
from hypothesis import strategies as st

from slm_serve.interleave.form import FormCheck


def check(*pieces, rate_hz=50.0, words_first=True):
    """Feed words and units until something is wrong; return how many units were good, and what is wrong."""
    form, n_good = FormCheck(rate_hz, words_first), 0
    for piece in pieces:
        if isinstance(piece, str):
            form.words(piece)
            continue
        good, wrong = form.units(piece)
        n_good += good
        if wrong:
            return n_good, wrong
    return n_good, None


def test_units_before_any_word_are_malformed_unless_units_are_all_there_is():
    assert check([1, 2]) == (0, "units_before_words")
    assert check(" \n", [1]) == (0, "units_before_words")
    assert check("a", [1, 2]) == (2, None)
    assert check([1, 2], words_first=False) == (2, None)


@pytest.mark.parametrize("period", [1, 2, 5, 8])
def test_a_pattern_over_three_seconds_is_malformed(period):
    pattern = list(range(period))
    # 3 s of 50 units a second repeat the pattern before them
    assert check("a", (pattern * 200)[: period + 149]) == (period + 149, None)
    assert check("a", (pattern * 200)[: period + 150]) == (period + 149, "repeated_units")


def test_longer_patterns_are_speech():
    assert check("a", list(range(9)) * 30) == (270, None)


def test_a_word_begins_the_count_anew():
    assert check("a", [1] * 149, "b", [1] * 149, "c", [1] * 149) == (447, None)


def test_a_word_that_never_ends_is_malformed():
    # 10 s of 50 units a second, no short pattern in them
    units = [(7 * i * i + i // 9) % 50 for i in range(600)]
    assert check("a", units) == (500, "units_without_end")
    assert check("a", units[:400], "b", units[:400]) == (800, None)


@given(st.lists(st.integers(0, 3), max_size=300), st.integers(0, 300))
def test_how_units_are_cut_never_matters(units, cut):
    assert check("a", units, rate_hz=10.0) == check("a", units[:cut], units[cut:], rate_hz=10.0)
