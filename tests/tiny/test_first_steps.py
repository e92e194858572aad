"""The whole tiny flow, trained for a few steps a stage, against the committed losses of the same steps."""

import json

import pytest

from tiny.first_steps import GOLDEN, STEPS, losses


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[float]]:
    return losses(tmp_path_factory.mktemp("flow"))


def test_every_stage_is_trained_and_merged(found: dict[str, list[float]]) -> None:
    assert {stage: len(values) for stage, values in found.items()} == {
        **dict.fromkeys(("base", "asr", "tts", "sqa"), STEPS),
        "model": 1,
    }


def test_losses_are_the_committed_ones(found: dict[str, list[float]]) -> None:
    # processors add in different orders, and the losses of later stages move by some 1e-5
    for stage, committed in json.loads(GOLDEN.read_text(encoding="utf-8")).items():
        assert found[stage] == pytest.approx(committed, rel=1e-3), stage
