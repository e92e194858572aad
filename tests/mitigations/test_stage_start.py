"""What is kept of a stage's start, and when it goes."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from slm_plugin.errors import WeightsError
from slm_plugin.records import StageRun
from slm_plugin.training.stage_start import FOLDER, WHOLE, at_start, forget


@pytest.fixture
def first(tmp_path) -> StageRun:
    return StageRun("asr", 0, tmp_path / "first", saves_checkpoints=True)


def resumed(run: StageRun, output_dir) -> StageRun:
    return dataclasses.replace(run, output_dir=output_dir, resume_from=run.output_dir / "checkpoint-2")


def test_a_resumed_run_reads_what_the_first_one_kept_in_the_type_it_trains_in(first, tmp_path):
    weight = torch.tensor([1.0, 2.0])
    copy = at_start(first, {"w": weight})["w"]
    weight += 1
    assert copy.tolist() == [1.0, 2.0]
    later = resumed(first, tmp_path / "second")
    found = at_start(later, {"w": weight.to(torch.bfloat16)})["w"]
    assert (found.tolist(), found.dtype) == ([1.0, 2.0], torch.bfloat16)
    # and keeps it for a run that resumes from its own checkpoints
    assert at_start(resumed(later, tmp_path / "third"), {"w": weight})["w"].tolist() == [1.0, 2.0]


def test_only_the_first_process_of_a_run_with_checkpoints_writes(first):
    for run in (dataclasses.replace(first, process_index=1), dataclasses.replace(first, saves_checkpoints=False)):
        at_start(run, {"w": torch.ones(1)})
        assert not (first.output_dir / FOLDER).exists()


def test_weights_that_share_memory_are_kept_apart(first):
    both = torch.ones(4)
    at_start(first, {"a": both[:2], "b": both[2:]})
    assert (first.output_dir / FOLDER / WHOLE).is_file()
    assert [path.name for path in (first.output_dir / FOLDER).iterdir()] == [WHOLE]


def test_the_start_goes_with_the_last_checkpoint(first):
    at_start(first, {"w": torch.ones(1)})
    (first.output_dir / "checkpoint-2").mkdir()
    forget(first)
    assert (first.output_dir / FOLDER).is_dir()
    (first.output_dir / "checkpoint-2").rmdir()
    forget(first)
    assert not (first.output_dir / FOLDER).exists()


@pytest.mark.parametrize("weights", [{"other": torch.ones(1)}, {"w": torch.ones(2)}])
def test_the_start_of_another_training_is_refused(first, tmp_path, weights):
    at_start(first, {"w": torch.ones(1)})
    with pytest.raises(WeightsError, match=r"start of another training: 1 of 1 weights"):
        at_start(resumed(first, tmp_path / "second"), weights)


def test_a_damaged_or_missing_file_is_one_clear_line(first, tmp_path):
    with pytest.raises(WeightsError, match=r"checkpoint-2 can be resumed .* is missing\.$"):
        at_start(resumed(first, tmp_path / "second"), {"w": torch.ones(1)})
    at_start(first, {"w": torch.ones(1)})
    (first.output_dir / FOLDER / WHOLE).write_bytes(b"no")
    with pytest.raises(WeightsError, match="cannot be read"):
        at_start(resumed(first, tmp_path / "second"), {"w": torch.ones(1)})
