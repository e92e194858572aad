from __future__ import annotations

import pytest

from slm_plugin.report.content import Cell, Forgetting, Learned
from slm_plugin.report.forgetting import learned_rows, numbers


def cell(value: float | None) -> Cell | None:
    return None if value is None else Cell(value, 10, None, {}, 0.5)


def cells(*rows: list[float | None]) -> list[list[Cell | None]]:
    return [[cell(value) for value in row] for row in rows]


def test_an_error_rate_learned_at_the_last_stage_is_no_part_of_forget_percent():
    matrix = cells([0.2, None], [0.3, 0.9])
    learned = learned_rows(["asr", "tts"], ["wer", "tts_wer"], matrix, {}, {})
    found = numbers(["asr", "tts"], ["wer", "tts_wer"], matrix, {"wer": "lower", "tts_wer": "lower"}, learned, {})
    # 0.2 -> 0.3 alone
    assert found.forget_percent == pytest.approx(50.0)
    # -(0.3 + 0.9) / 2 and -(0.3 - 0.2)
    assert (found.acc, found.bwt) == (pytest.approx(-0.6), pytest.approx(-0.1))


def test_the_chance_of_an_error_rate_counts_negated():
    matrix = cells([0.9], [0.2])
    learned = {"wer": Learned("asr", "given")}
    found = numbers(["base", "asr"], ["wer"], matrix, {"wer": "lower"}, learned, {"wer": 1.0})
    # -0.9 - (-1.0)
    assert found.fwt == pytest.approx(0.1)


def test_a_skill_that_was_never_measured_is_left_out():
    matrix = cells([1.0, None], [0.5, None])
    learned = learned_rows(["base", "asr"], ["text", "other"], matrix, {"other": "asr"}, {})
    assert set(learned) == {"text"}
    found = numbers(["base", "asr"], ["text", "other"], matrix, {"text": "higher"}, learned, {})
    assert found == Forgetting(0.5, -0.5, 0.5, None, None)


def test_rows_that_a_matrix_lacks_teach_nothing_in_it():
    learned = learned_rows(["base"], ["text"], cells([1.0]), {"text": "sqa"}, {"text": "asr"})
    assert learned == {"text": Learned("base", "first measured")}


def test_nothing_is_defined_without_scores_and_an_error_rate_of_zero_has_no_growth():
    assert numbers([], [], [], {}, {}, {}) == Forgetting(None, None, None, None, None)
    matrix = cells([0.0], [0.1])
    found = numbers(["a", "b"], ["wer"], matrix, {"wer": "lower"}, {"wer": Learned("a", "gate")}, {})
    assert found.forget_percent is None
