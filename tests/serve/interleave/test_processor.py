"""The logits processor on vLLM's own batch updates; tests/serve/test_vllm.py runs it in an engine."""

import pytest
import torch
from vllm import SamplingParams
from vllm.v1.sample.logits_processor import BatchUpdate
from vllm.v1.sample.logits_processor.interface import MoveDirectionality

from slm_serve.interleave.constraint import Constraint, engine_arguments
from slm_serve.interleave.processor import InterleaveProcessor

# ids 0 to 5 are text, 6 to 8 units, 9 is special; 3 ends the turn
N_IDS, FIRST, COUNT, END = 10, 6, 3, 3
TEXT, UNITS, ALL = {0, 1, 2, 3, 4, 5, 9}, {3, 6, 7, 8}, set(range(10))


def params(constraint=None):
    given = None if constraint is None else engine_arguments(constraint, FIRST, COUNT, END)
    return SamplingParams(extra_args=given)


def update(size, added=(), removed=(), moved=()):
    return BatchUpdate(size, list(removed), list(added), list(moved))


@pytest.fixture
def processor():
    return InterleaveProcessor(None, torch.device("cpu"), False)


def possible(processor, n_rows):
    logits = processor.apply(torch.zeros(n_rows, N_IDS))
    return [{index for index in range(N_IDS) if logits[row, index] == 0} for row in range(n_rows)]


def test_each_request_keeps_to_its_own_constraint(processor):
    rows = [None, Constraint("text"), Constraint("units")]
    processor.update_state(update(3, [(index, params(row), [], []) for index, row in enumerate(rows)]))
    assert possible(processor, 3) == [ALL, TEXT, UNITS]


def test_a_ratio_follows_what_was_generated(processor):
    output = []
    processor.update_state(update(1, [(0, params(Constraint("ratio", 1, 2)), [], output)]))
    seen = []
    for token_id in (1, 7, 7, 2, 8):
        seen += possible(processor, 1)
        output.append(token_id)
    assert seen == [TEXT, UNITS, UNITS, TEXT, UNITS]


def test_requests_that_go_and_move_take_their_constraints_along(processor):
    text, units = params(Constraint("text")), params(Constraint("units"))
    processor.update_state(update(3, [(0, text, [], []), (1, units, [], []), (2, params(), [], [])]))
    processor.update_state(update(3, moved=[(0, 1, MoveDirectionality.SWAP)]))
    assert possible(processor, 3) == [UNITS, TEXT, ALL]
    processor.update_state(update(2, removed=[0], moved=[(2, 0, MoveDirectionality.UNIDIRECTIONAL)]))
    assert possible(processor, 2) == [ALL, TEXT]
    # a new request in an old place
    processor.update_state(update(2, [(1, params(), [], [])]))
    processor.update_state(None)
    assert possible(processor, 2) == [ALL, ALL]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"slm_mode": "words"}, "slm_mode must be one of text, units, ratio"),
        ({"slm_first": -1}, "slm_first must be a whole number"),
        ({"slm_count": None}, "slm_count must be a whole number"),
        ({"slm_mode": "ratio"}, "1 or more where slm_mode is 'ratio'"),
    ],
)
def test_arguments_that_make_no_constraint_are_refused(change, words):
    given = {**engine_arguments(Constraint("text"), FIRST, COUNT, END), **change}
    with pytest.raises(ValueError, match=words):
        InterleaveProcessor.validate_params(SamplingParams(extra_args=given))


def test_requests_without_a_constraint_are_none_of_its_business(processor):
    InterleaveProcessor.validate_params(SamplingParams())
    assert not processor.is_argmax_invariant()
