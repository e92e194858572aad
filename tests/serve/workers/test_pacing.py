from hypothesis import given
from hypothesis import strategies as st

from slm_serve.workers.pacing import FIRST_S, LONGEST_S, MARGIN_S, Pacer


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_the_first_chunk_leaves_at_once_and_is_small():
    pacer = Pacer(50.0, Clock())
    assert pacer.wanted() == 1
    # .4 s of 50 units a second
    assert pacer.most == 20 == FIRST_S * 50


def test_later_chunks_grow_while_sound_is_ahead_of_the_listener():
    clock = Clock()
    pacer = Pacer(50.0, clock)
    pacer.sent(1.0)
    assert pacer.wanted() == pacer.most == 20
    pacer.sent(1.0)
    assert pacer.wanted() == pacer.most == 40
    pacer.sent(1.0)
    pacer.sent(1.0)
    assert pacer.most == 50 == LONGEST_S * 50


def test_a_listener_about_to_run_dry_gets_what_there_is():
    clock = Clock()
    pacer = Pacer(50.0, clock)
    pacer.sent(1.0)
    assert pacer.wait_s() == 1.0 - MARGIN_S
    clock.now += 1.0 - MARGIN_S
    assert pacer.wanted() == 1
    # dry for a second: playing goes on from when the next sound comes
    clock.now += 1.25
    pacer.sent(0.5)
    assert pacer.wait_s() == 0.5 - MARGIN_S


@given(st.lists(st.tuples(st.floats(0, 2), st.floats(0, 2)), max_size=20))
def test_nobody_waits_with_sound_in_hand_while_the_listener_has_none(steps):
    clock = Clock()
    pacer = Pacer(50.0, clock)
    left_s = 0.0
    for passed_s, sound_s in steps:
        clock.now += passed_s
        left_s = max(0.0, left_s - passed_s)
        if left_s <= MARGIN_S - 1e-6:
            assert pacer.wanted() == 1
        pacer.sent(sound_s)
        left_s += sound_s
        assert 1 <= pacer.most <= LONGEST_S * 50
