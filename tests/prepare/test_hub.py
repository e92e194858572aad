"""Uploading, tested against a fake of the hub."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from prepare import world
from prepare.fake_hub import FakeHub
from slm_plugin.errors import DataError
from slm_plugin.prepare import command


def test_what_the_fake_hub_gets_is_a_data_set_that_loads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    import datasets

    hub = FakeHub(tmp_path / "hub")
    monkeypatch.setattr("huggingface_hub.HfApi", lambda: hub)
    table = world.listed(tmp_path / "corpus", 3)
    arguments = ["name=set", f"output={tmp_path / 'out'}", "codec=tiny", f"corpus.table.path={table}"]
    command.prepare_corpus([*arguments, "push_to_hub=anna"])
    said = capsys.readouterr().out
    assert "3 of 3 items" in said
    assert "terms of the corpus: not stated" in said
    assert "uploaded anna/set" in said
    assert hub.private
    command.prepare_corpus([*arguments, "push_to_hub=anna", "push_public=true"])
    assert not hub.private
    assert world.tree(tmp_path / "hub/anna/set") == world.tree(tmp_path / "out/set")
    found = datasets.load_dataset(str(tmp_path / "hub/anna/set"), split="train", cache_dir=str(tmp_path / "cache"))
    assert found["text"] == list(world.TEXTS[:3])


def test_a_refusal_of_the_hub_keeps_what_was_made(
    prepared: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    from slm_plugin.data.upload import push

    prepared(f"corpus.table.path={world.listed(tmp_path / 'corpus', 2)}")
    with pytest.raises(DataError, match=r"anna/set was not uploaded, what was made stays in .*: 401 no token"):
        push(tmp_path / "out", ["set"], "anna", FakeHub(tmp_path / "hub", "401 no token"), "")
    assert (tmp_path / "out/set/train/part-00000.parquet").is_file()
