"""Local processes, torchrun and Ray Data: the same bytes out of each."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from prepare import world
from slm_plugin.errors import DataError
from slm_plugin.prepare.engines import local
from slm_plugin.prepare.job import Job

FORMS = ("shard_items=2", "interleave.form=spans", "interleave.mean_words=1")


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    path = world.listed(tmp_path / "corpus", 10)
    (tmp_path / "corpus/wav/03.wav").write_bytes(b"broken")
    return path


def command(tmp_path: Path, corpus: Path, *arguments: str) -> list[str]:
    given = ["name=set", f"output={tmp_path / 'out'}", "codec=tiny", f"corpus.table.path={corpus}"]
    return ["-m", "slm_plugin", "prepare", *given, *FORMS, *arguments]


def environment() -> dict[str, str]:
    known = {key: value for key, value in os.environ.items() if key not in ("RANK", "WORLD_SIZE", "LOCAL_RANK")}
    return {**known, "OMP_NUM_THREADS": "1"}


def test_two_processes_give_the_bytes_of_one(prepared: Callable[..., Any], corpus: Path, tmp_path: Path):
    prepared(f"corpus.table.path={corpus}", *FORMS, output="one")
    prepared(f"corpus.table.path={corpus}", *FORMS, "workers=2")
    assert world.tree(tmp_path / "out") == world.tree(tmp_path / "one")


def test_a_worker_that_dies_ends_the_run_in_words_and_the_rest_is_kept(
    prepared: Callable[..., Any], corpus: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(local, "_serve", die)
    with pytest.raises(DataError, match=r"made shard [01] was ended by signal or status 9 .*start it again to go on"):
        prepared(f"corpus.table.path={corpus}", *FORMS, "workers=2")


def die(connection: Any, job: Job) -> None:
    """Stands for a process that runs out of memory."""
    connection.recv()
    os._exit(9)


def test_torchrun_without_torchrun_is_refused(prepared: Callable[..., Any], corpus: Path):
    with pytest.raises(DataError, match="torchrun --nproc-per-node N -m slm_plugin prepare"):
        prepared(f"corpus.table.path={corpus}", "engine=torchrun")


@pytest.mark.slow
def test_torchrun_gives_the_bytes_of_one_process(prepared: Callable[..., Any], corpus: Path, tmp_path: Path):
    prepared(f"corpus.table.path={corpus}", *FORMS, output="one")
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*torchrun, *command(tmp_path, corpus)], env=environment(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    # one of the two says what was made
    assert done.stdout.count("9 of 10 items") == 1
    assert world.tree(tmp_path / "out") == world.tree(tmp_path / "one")


@pytest.mark.slow
def test_two_workers_of_a_real_ray_give_the_bytes_of_one_process(
    prepared: Callable[..., Any], corpus: Path, tmp_path: Path
):
    pytest.importorskip("ray", reason="pip install 'slm-plugin[ray]'")
    prepared(f"corpus.table.path={corpus}", *FORMS, output="one")
    done = subprocess.run(
        [sys.executable, *command(tmp_path, corpus, "engine=ray", "workers=2")],
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert world.tree(tmp_path / "out") == world.tree(tmp_path / "one")
