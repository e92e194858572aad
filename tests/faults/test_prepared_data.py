"""Faults of the machine are not faults of the data, and a replaced recording or row is noticed."""

from __future__ import annotations

import errno
import io
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from rich.console import Console
from typer.testing import CliRunner

from prepare import world
from prepare.fixtures import prepared
from slm_plugin.cli import make_app
from slm_plugin.errors import DataError
from slm_plugin.plugins import Registry
from slm_plugin.prepare import recordings
from slm_plugin.prepare.options import load
from slm_plugin.prepare.progress import Progress
from slm_plugin.prepare.run import prepare
from slm_plugin.speech.mel_kmeans import MelKmeansCodec
from slm_plugin.strict import parse

__all__ = ["prepared"]

Prepared = Callable[..., Any]


@pytest.fixture
def table(tmp_path: Path) -> Path:
    return world.listed(tmp_path / "corpus")


def rows_of(folder: Path) -> dict[str, Any]:
    return {row["id"]: row for path in folder.glob("train/*.parquet") for row in pq.read_table(path).to_pylist()}


def told(tmp_path: Path, registry: Registry, *arguments: str) -> str:
    console = Console(file=io.StringIO(), width=300)
    given = ["name=set", f"output={tmp_path / 'out'}", "codec=tiny", *arguments]
    prepare(load(given), registry, Progress(console))
    return console.file.getvalue()


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOMEM, errno.ESTALE, errno.EACCES])
def test_a_recording_that_cannot_be_read_for_a_moment_is_tried_again(
    number: int, prepared: Prepared, table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    with monkeypatch.context() as patch:
        read = recordings.file_digest

        def fail(path: Path) -> str:
            if path.name == "03.wav":
                raise OSError(number, os.strerror(number), str(path))
            return read(path)

        patch.setattr(recordings, "file_digest", fail)
        found = prepared(f"corpus.table.path={table}", "shard_items=2")
    assert found.reasons == {"unreadable": 1}
    page = (tmp_path / "out/set/README.md").read_text()
    assert "| unreadable | 1 | the recording could not be read from the disk; the next run tries again |" in page
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out/set/train").iterdir()}
    found = prepared(f"corpus.table.path={table}", "shard_items=2")
    assert found.reasons == {}
    # only the shard of that recording was made again
    after = {path: path.stat().st_mtime_ns for path in (tmp_path / "out/set/train").iterdir()}
    assert [path.name for path in before if after[path] != before[path]] == ["part-00001.parquet"]
    prepared(f"corpus.table.path={table}", "shard_items=2", output="undisturbed")
    assert world.tree(tmp_path / "out/set") == world.tree(tmp_path / "undisturbed/set")


def test_too_little_memory_is_no_fault_of_the_recording(
    prepared: Prepared, table: Path, monkeypatch: pytest.MonkeyPatch
):
    with monkeypatch.context() as patch:
        encode = MelKmeansCodec.encode
        count = iter(range(100))
        patch.setattr(MelKmeansCodec, "encode", lambda self, w: encode(self, w) if next(count) else _no_memory())
        patch.setattr("slm_plugin.prepare.worker.encode_batch", lambda codec, waves: [codec.encode(w) for w in waves])
        found = prepared(f"corpus.table.path={table}", "batch_seconds=0.1")
        assert found.reasons in ({}, {"memory": 1})
        patch.setattr(MelKmeansCodec, "encode", lambda self, w: _no_memory())
        with pytest.raises(DataError, match=r"none of 6 items could be kept \(memory 6\)"):
            prepared(f"corpus.table.path={table}", name="none")
    assert prepared(f"corpus.table.path={table}", name="none").n_rows == 6


def _no_memory() -> Any:
    raise MemoryError


def test_a_corpus_that_is_not_mounted_is_read_when_it_is(prepared: Prepared, table: Path, tmp_path: Path):
    (table.parent / "wav").rename(tmp_path / "unmounted")
    (table.parent / "wav").mkdir()
    with pytest.raises(DataError, match=r"\(unreadable 6\)"):
        prepared(f"corpus.table.path={table}")
    (table.parent / "wav").rmdir()
    (tmp_path / "unmounted").rename(table.parent / "wav")
    assert prepared(f"corpus.table.path={table}").n_rows == 6


def test_a_fault_of_the_item_is_final(prepared: Prepared, table: Path, tmp_path: Path, registry: Registry):
    (table.parent / "wav/02.wav").write_bytes(b"RIFF no recording")
    assert prepared(f"corpus.table.path={table}").reasons == {"audio": 1}
    assert "made again" not in told(tmp_path, registry, f"corpus.table.path={table}")
    # until it is another one
    world.write_wave(table.parent / "wav/02.wav", 2)
    assert "shard 0 is made again: wav/02.wav has another recording" in told(
        tmp_path, registry, f"corpus.table.path={table}"
    )
    assert "wav/02.wav" in rows_of(tmp_path / "out/set")


def test_a_replaced_recording_is_made_again_and_a_copied_corpus_is_not(
    table: Path, tmp_path: Path, registry: Registry
):
    argument = f"corpus.table.path={table}"
    told(tmp_path, registry, argument, "shard_items=2")
    before = rows_of(tmp_path / "out/set")
    os.utime(table.parent / "wav/00.wav")
    assert "made again" not in told(tmp_path, registry, argument, "shard_items=2")
    world.write_wave(table.parent / "wav/04.wav", 99)
    assert "shard 2 is made again: wav/04.wav has another recording" in told(
        tmp_path, registry, argument, "shard_items=2"
    )
    after = rows_of(tmp_path / "out/set")
    assert [name for name in before if before[name] != after[name]] == ["wav/04.wav"]
    assert "made again" not in told(tmp_path, registry, argument, "shard_items=2")
    # a recording that was away and has come
    (table.parent / "wav/05.wav").rename(tmp_path / "05.wav")
    shutil.rmtree(tmp_path / "out")
    told(tmp_path, registry, argument, "shard_items=2")
    (tmp_path / "05.wav").rename(table.parent / "wav/05.wav")
    assert "wav/05.wav has a recording now" in told(tmp_path, registry, argument, "shard_items=2")


@pytest.mark.parametrize("form", ["chats", "hub"])
def test_a_changed_row_in_the_middle_is_another_corpus(form: str, registry: Registry, tmp_path: Path):
    path = tmp_path / "rows.jsonl"
    kind = registry.corpora.get(form)
    found = set()
    for middle in ("one", "two"):
        rows = [{"input": text, "output": "x", "audio": text, "text": text} for text in ("first", middle, "last")]
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        found |= {kind(parse(kind.Options, {"path": str(path)}, form)).fingerprint for _ in range(2)}
    assert len(found) == 2


def test_the_command_says_that_it_can_be_repeated(table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    shutil.rmtree(table.parent / "wav")
    (table.parent / "wav").mkdir()
    world.write_wave(tmp_path / "one.wav", 1)
    lines = table.read_text().splitlines()
    table.write_text("\n".join([*lines[:1], json.dumps({"audio": str(tmp_path / "one.wav"), "text": "one"})]))
    arguments = ["prepare", "name=set", f"output={tmp_path / 'out'}", "codec=tiny", f"corpus.table.path={table}"]
    output = CliRunner().invoke(make_app(), arguments).output
    assert "1 items were dropped for faults of this machine; run the same command again to retry them." in output
