"""What is written under a temporary name gets the permissions that the umask gives to any new file."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from slm_plugin.adapters.discount import _link
from slm_plugin.pipeline.lock import locked
from slm_plugin.speech.mel_kmeans import load_tiny
from slm_plugin.training.stage_start import keep
from slm_plugin.weights.permissions import share, umask
from slm_plugin.weights.staging import staged
from slm_plugin.weights.writer import CheckpointWriter, PlannedTensor
from tiny_models import make_model


@pytest.fixture(params=[0o022, 0o002, 0o077], ids=oct)
def mask(request: pytest.FixtureRequest) -> Iterator[int]:
    """A umask that holds during the test."""
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def modes(folder: Path) -> dict[str, int]:
    found = [folder, *folder.rglob("*")]
    return {path.name: stat.S_IMODE(path.stat().st_mode) for path in found}


def expected(folder: Path, mask: int) -> dict[str, int]:
    return {path.name: (0o777 if path.is_dir() else 0o666) & ~mask for path in [folder, *folder.rglob("*")]}


def test_the_umask_is_read_and_stays(mask: int):
    assert umask() == mask
    assert umask() == mask


def test_an_exported_model_is_as_open_as_any_new_file(mask: int, tmp_path: Path):
    with staged(tmp_path / "model") as partial:
        make_model(partial)
        (partial / "sub").mkdir()
        save_file({"a": torch.ones(1)}, partial / "sub" / "a.safetensors")
    assert "model.safetensors" in modes(tmp_path / "model")
    assert modes(tmp_path / "model") == expected(tmp_path / "model", mask)


def test_so_are_weights_that_are_written_tensor_by_tensor(mask: int, tmp_path: Path):
    with CheckpointWriter(tmp_path / "m", [PlannedTensor("a", (2,), torch.float32)]) as writer:
        writer.write("a", torch.ones(2))
    assert modes(tmp_path / "m") == expected(tmp_path / "m", mask)


def test_so_are_codecs_anchors_and_locks(mask: int, tmp_path: Path):
    load_tiny().save(tmp_path / "codec")
    keep(tmp_path / "kept" / "whole.safetensors", {"a": torch.from_numpy(np.ones(2))})
    with locked(tmp_path / "run", print):
        pass
    for name in ("codec", "kept", "run"):
        assert modes(tmp_path / name) == expected(tmp_path / name, mask), name


def test_no_permission_is_taken_away_and_no_linked_file_is_touched(tmp_path: Path):
    script, source = tmp_path / "run.sh", tmp_path / "private"
    script.write_text("#!/bin/sh")
    script.chmod(0o755)
    source.write_text("x")
    source.chmod(0o600)
    folder = tmp_path / "folder"
    folder.mkdir()
    _link(source, folder / "soft")
    os.link(source, folder / "hard")
    share(script)
    share(folder)
    assert stat.S_IMODE(script.stat().st_mode) == 0o755
    assert stat.S_IMODE(source.stat().st_mode) == 0o600


@pytest.mark.slow
def test_the_untrained_model_of_the_tiny_world_is_too(tmp_path: Path, root: Path):
    command = [sys.executable, "examples/tiny/make_base.py", str(tmp_path / "base")]
    subprocess.run(command, cwd=root, check=True, capture_output=True, umask=0o027)
    assert modes(tmp_path / "base") == expected(tmp_path / "base", 0o027)
