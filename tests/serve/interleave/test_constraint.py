from hypothesis import given
from hypothesis import strategies as st

from slm_serve.interleave.constraint import Constraint, Dropper

# ids from 100 on are units, 9 ends the turn
UNIT, END = 100, 9


def kept(constraint, ids):
    return Dropper(constraint, lambda token_id: token_id >= UNIT, frozenset({END, *range(100, 110)})).feed(ids)


def test_text_alone_units_alone_and_everything():
    ids = [1, 100, 2, 101, END]
    assert kept(Constraint("text"), ids) == [1, 2, END]
    assert kept(Constraint("units"), ids) == [100, 101, END]
    assert kept(None, ids) == ids


def test_a_ratio_keeps_the_earliest_tokens_of_each_round():
    # rounds of 1 text token and 2 units: 2 comes where a unit is due, 103 where text is
    ids = [100, 1, 101, 2, 102, 103, 3, 104, END]
    assert kept(Constraint("ratio", 1, 2), ids) == [1, 101, 102, 3, 104, END]


@given(
    st.lists(st.one_of(st.integers(0, 8), st.integers(100, 109)), max_size=40),
    st.integers(1, 4),
    st.integers(1, 4),
    st.integers(0, 40),
)
def test_what_is_kept_obeys_the_ratio_however_it_is_cut(ids, n_text, n_units, cut):
    constraint = Constraint("ratio", n_text, n_units)
    whole = kept(constraint, ids)
    for position, token_id in enumerate(whole):
        assert (token_id >= UNIT) == (position % (n_text + n_units) >= n_text)
    dropper = Dropper(constraint, lambda token_id: token_id >= UNIT)
    assert dropper.feed(ids[:cut]) + dropper.feed(ids[cut:]) == whole
    # what obeys already is kept whole
    assert kept(constraint, whole) == whole
