"""Metrics of forgetting against worked examples and the published figures."""

from __future__ import annotations

import itertools

import pytest

from slm_plugin.errors import DataError
from slm_plugin.eval.metrics import (
    Trajectory,
    average_score,
    backward_transfer,
    forget_percent,
    forgetting,
    forward_transfer,
)

# rows: base, asr, sqa; text is learned in row 0, asr in row 1, sqa in row 2
SKILLS = ("text", "asr", "sqa")
LEARNED = {"text": 0, "asr": 1, "sqa": 2}
BETTER = {"text": "higher", "asr": "lower", "sqa": "higher"}
SCORES = [[0.9, None, 0.1], [0.95, 0.2, 0.2], [0.5, 0.6, 0.8]]


def trajectory(scores=SCORES):
    return Trajectory.of(scores, SKILLS, BETTER, LEARNED)


def test_acc_is_the_mean_of_the_last_row_with_error_rates_negated():
    # (.5 - .6 + .8) / 3 = .2333
    assert average_score(trajectory()) == pytest.approx(0.7 / 3)


def test_bwt_compares_the_end_with_the_stage_that_taught_the_skill():
    # text .5 - .9 = -.4, asr -.6 + .2 = -.4; sqa is learned last and does not count
    assert backward_transfer(trajectory()) == pytest.approx(-0.4)


def test_forgetting_is_from_the_best_score_there_was():
    # text .95 - .5 = .45 (it had grown after asr), asr .6 - .2 = .4
    assert forgetting(trajectory()) == pytest.approx(0.425)


def test_fwt_is_what_was_known_before_the_stage_over_chance():
    # sqa before its stage .2, chance .125: .075; asr was not measured before its stage
    assert forward_transfer(trajectory(), [0.0, -1.0, 0.125]) == pytest.approx(0.075)


def test_nothing_is_forgotten_after_a_single_stage():
    single = Trajectory.of([[0.9, 0.3, 0.2]], SKILLS, BETTER, dict.fromkeys(SKILLS, 0))
    assert str(backward_transfer(single)) == str(forgetting(single)) == "nan"


def test_a_skill_without_its_stage_is_refused():
    with pytest.raises(DataError, match="which of the 3 stages 'sqa' is learned"):
        Trajectory.of(SCORES, SKILLS, BETTER, {"text": 0, "asr": 1})


# published: LS clean, LS other after, Forget %; before 2.0 and 3.7 (slides on the average of domain experts)
PUBLISHED = [
    (2.0, 3.7, 0),
    (4.5, 7.8, 120),
    (2.6, 5.2, 38),
    (7.3, 12.9, 260),
    (3.2, 6.8, 79),
    (4.9, 8.6, 140),
    (4.8, 8.7, 140),
    (2.0, 4.1, 8.9),
    (1.9, 3.9, 3.4),
    (4.1, 8.2, 120),
    (3.7, 7.2, 94),
    (2.0, 4.2, 10),
    (2.0, 4.2, 12),
    (1.9, 4.0, 5),
    (2.1, 4.3, 15),
    (2.0, 4.1, 7.1),
    (2.0, 4.3, 12),
    (2.0, 4.1, 9.1),
    (1.8, 3.8, 0.4),
]


@pytest.mark.parametrize(("clean", "other", "published"), PUBLISHED)
def test_forget_percent_agrees_with_every_published_row_within_its_rounding(clean, other, published):
    # the published error rates are rounded to .1, the percentages to two digits
    steps = (-0.05, 0.05)
    values = [
        forget_percent([2.0 + a, 3.7 + b], [clean + c, other + d])
        for a, b, c, d in itertools.product(steps, steps, steps, steps)
    ]
    rounding = 5 if published >= 100 else 0.5 if published >= 10 else 0.05
    assert min(values) - rounding <= published <= max(values) + rounding
    assert max(values) - min(values) < 20


def test_forget_percent_of_a_doubled_error_rate_is_a_hundred():
    assert forget_percent([2.0, 4.0], [4.0, 8.0]) == pytest.approx(100)


@pytest.mark.parametrize(("before", "after"), [([], []), ([1.0], [1.0, 2.0]), ([0.0], [1.0])])
def test_forget_percent_refuses_what_has_no_meaning(before, after):
    with pytest.raises(DataError, match="Forget %"):
        forget_percent(before, after)
