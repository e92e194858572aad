"""A run that is killed at any moment goes on, and the end is the same."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from prepare import world

SLOW_CODEC = """
import sys, time
from slm_plugin.speech.mel_kmeans import MelKmeansCodec
encode = MelKmeansCodec.encode
MelKmeansCodec.encode = lambda self, wave: (time.sleep(0.2), encode(self, wave))[1]
from slm_plugin.prepare.command import prepare_corpus
prepare_corpus(sys.argv[1:])
"""


def test_kill_9_loses_at_most_the_shard_in_flight(prepared: Callable[..., Any], tmp_path: Path):
    table = world.listed(tmp_path / "corpus", 12)
    (tmp_path / "corpus/wav/05.wav").write_bytes(b"broken")
    arguments = [f"corpus.table.path={table}", "shard_items=2"]
    given = ["name=set", f"output={tmp_path / 'out'}", "codec=tiny", *arguments]
    # .4 seconds a shard, so that the run is caught between the second and the last
    process = subprocess.Popen([sys.executable, "-c", SLOW_CODEC, *given], stdout=subprocess.DEVNULL)
    marks = tmp_path / "out/set/shards"
    while len(list(marks.glob("*.json"))) < 2:
        assert process.poll() is None, "ended before it could be killed"
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    finished = {path: path.stat().st_mtime_ns for path in (tmp_path / "out/set/train").glob("*.parquet")}
    n_marked = len(list(marks.glob("*.json")))
    assert 2 <= n_marked < 6
    # a file may be there whose mark was not written any more; no other is lost
    assert n_marked <= len(finished) <= n_marked + 1
    prepared(*arguments)
    kept = sorted(finished)[:n_marked]
    assert all(path.stat().st_mtime_ns == finished[path] for path in kept)
    prepared(*arguments, output="undisturbed")
    assert world.tree(tmp_path / "out/set") == world.tree(tmp_path / "undisturbed/set")
    assert not (tmp_path / "out/set/.work").exists()


@pytest.mark.parametrize("moment", ["rows", "mark", "report", "card", "registry"])
def test_stopping_before_any_file_settles_changes_nothing_in_the_end(
    moment: str, prepared: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    class Killed(BaseException):
        """Stands for the end of the process."""

    names = {
        "rows": "part-00001.parquet",
        "mark": "00001.json",
        "report": "report.jsonl",
        "card": "card.json",
        "registry": "dataset_info.json",
    }
    replace = Path.replace

    def stop(self: Path, target: Path) -> Path:
        if Path(target).name == names[moment]:
            raise Killed
        return replace(self, target)

    arguments = [f"corpus.table.path={world.listed(tmp_path / 'corpus', 4)}", "shard_items=2"]
    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", stop)
        with pytest.raises(Killed):
            prepared(*arguments)
    prepared(*arguments)
    prepared(*arguments, output="undisturbed")
    assert world.tree(tmp_path / "out") == world.tree(tmp_path / "undisturbed")
