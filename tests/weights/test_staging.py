"""Folders that appear when all of their files are written."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest
from safetensors import SafetensorError

from slm_plugin import card
from slm_plugin.errors import WeightsError
from slm_plugin.weights.staging import intended, staged, whole, writing_error


def write_and_fail(destination, error):
    with staged(destination) as partial:
        (partial / "half").write_text("half")
        raise error


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        # what safetensors and tokenizers make of it
        SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"),
        Exception("No space left on device (os error 28)"),
    ],
)
def test_a_full_disk_is_one_line_whoever_met_it(error, tmp_path):
    with pytest.raises(WeightsError) as caught:
        write_and_fail(tmp_path / "model", error)
    assert str(caught.value) == f"{tmp_path / 'model'} was not written: No space left on device. Nothing was changed."
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("error", [RuntimeError("a bug"), WeightsError("damaged (os error 28)")])
def test_other_errors_stay_as_they_are(error, tmp_path):
    with pytest.raises(type(error)) as caught:
        write_and_fail(tmp_path / "model", error)
    assert caught.value is error
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("error", "why"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "No space left on device"),
        # what torch.save said on a tmpfs that was full
        (
            RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 3776 vs 3668"),
            "the disk took no m",
        ),
    ],
)
def test_a_checkpoint_that_cannot_be_finished_is_removed(error, why, tmp_path):
    def write():
        with whole(tmp_path / "checkpoint-2"):
            (tmp_path / "checkpoint-2").mkdir()
            (tmp_path / "checkpoint-2/adapter_model.safetensors").write_text("whole")
            raise error

    with pytest.raises(WeightsError, match=f"checkpoint-2 was not written: {why}"):
        write()
    assert list(tmp_path.iterdir()) == []


def test_only_a_disk_that_takes_no_more_is_a_writing_error():
    assert writing_error(FileNotFoundError(errno.ENOENT, "No such file")) is None
    assert writing_error(ValueError("28")) is None
    assert writing_error(OSError(errno.EDQUOT, "Quota exceeded")).errno == errno.EDQUOT


def test_folders_within_folders_are_moved_and_files_of_other_kinds_stay(tmp_path):
    (tmp_path / "model/templates").mkdir(parents=True)
    (tmp_path / "model/templates/old").write_text("old")
    (tmp_path / "model/mine").write_text("mine")
    with staged(tmp_path / "model") as partial:
        (partial / "templates").mkdir()
        (partial / "templates/new").write_text("new")
    found = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file())
    assert found == ["model/mine", "model/templates/new", "model/templates/old"]


def test_messages_name_the_folder_that_users_asked_for():
    # one staged folder inside of another
    assert intended(Path("runs/..model.partial-ab.partial-cd/adapter")) == Path("runs/model/adapter")
    assert intended(Path("runs/model.partial-ab")) == Path("runs/model.partial-ab")


def test_a_card_that_cannot_be_written_leaves_the_earlier_one(tmp_path, monkeypatch):
    card.write(tmp_path, {"stage": "asr"})
    before = (tmp_path / "slm.json").read_bytes()
    write_text = Path.write_text

    def full(self, text, **options):
        write_text(self, text[:5], **options)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(WeightsError, match=r"slm\.json was not written: No space left on device"):
        card.write(tmp_path, {"stage": "tts"})
    assert (tmp_path / "slm.json").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["slm.json"]
