"""``kill -9`` at every point of a pipeline, and what holds an output folder."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from slm_plugin.errors import PipelineError
from slm_plugin.pipeline.lock import locked


def test_killed_before_any_of_its_changes_to_the_disk_it_goes_on_without_loss(tmp_path: Path, root: Path) -> None:
    script = root / "tests/pipeline/kill_everywhere.py"
    done = subprocess.run(
        [sys.executable, script, tmp_path], capture_output=True, text=True, timeout=500, check=False, cwd=root
    )
    assert done.returncode == 0, done.stdout[-500:] + done.stderr
    points = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(points) > 20
    assert [point["killed"] for point in points] == [True] * (len(points) - 1) + [False]
    for point in points:
        # what was finished is not run again, everything else is, from a clean start, and everything is there
        assert point["skipped"] == point["recorded"], point
        assert set(point["again"]) >= set(point["left"]) - set(point["skipped"]), point
        assert not set(point["again"]) & set(point["skipped"]), point
        assert point["left"] == {"one": "ox", "left": "lx", "right": "rx"}, point
        assert point["lineage"] == ["left", "one", "right"], point
    # it was killed with none, some and all of the steps finished
    assert {len(point["recorded"]) for point in points} == {0, 1, 2, 3}


def test_a_folder_is_held_by_one_run_at_a_time(tmp_path: Path) -> None:
    told: list[str] = []
    with locked(tmp_path, told.append):
        assert told == []
        with (
            pytest.raises(PipelineError, match="another run, or a process that it left, is using"),
            locked(tmp_path, told.append, wait_seconds=0.0),
        ):
            pass
    with locked(tmp_path, told.append, wait_seconds=0.0):
        pass


def test_a_folder_is_held_until_the_children_of_a_killed_run_have_ended(tmp_path: Path) -> None:
    read, write = os.pipe()
    with locked(tmp_path, print) as lock:
        # it ends when the other end of the pipe is closed
        child = subprocess.Popen(["cat"], stdin=read, pass_fds=[lock])
    os.close(read)
    with pytest.raises(PipelineError, match="is using"), locked(tmp_path, print, wait_seconds=0.0):
        pass
    os.close(write)
    child.wait()
    with locked(tmp_path, print, wait_seconds=0.0):
        pass
