from __future__ import annotations

import errno
import json
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file

from slm_plugin.errors import WeightsError
from slm_plugin.weights import writer as writer_module
from slm_plugin.weights.checkpoint import Checkpoint
from slm_plugin.weights.writer import CheckpointWriter, PlannedTensor

DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.int64, torch.uint8, torch.bool)


def planned(tensors):
    return [PlannedTensor(name, tuple(tensor.shape), tensor.dtype) for name, tensor in tensors.items()]


def some_tensors(n=4, size=100):
    draw = torch.Generator().manual_seed(0)
    return {f"t{number}": torch.randn(size, generator=draw) for number in range(n)}


def files(folder):
    return sorted(path.name for path in folder.iterdir())


def write(folder, tensors, limit=None):
    with CheckpointWriter(folder, planned(tensors), limit) as writer:
        for name, tensor in tensors.items():
            writer.write(name, tensor)


def write_and_stop(folder, tensors):
    with CheckpointWriter(folder, planned(tensors), 500) as writer:
        writer.write("t0", tensors["t0"] * 2)
        raise RuntimeError("stop")


@settings(max_examples=25, deadline=None)
@given(
    shapes=st.lists(
        st.tuples(st.sampled_from(DTYPES), st.lists(st.integers(0, 5), max_size=3)), min_size=1, max_size=6
    ),
    limit=st.none() | st.integers(1, 400),
)
def test_what_is_written_is_read_back_by_safetensors_bit_by_bit(shapes, limit, tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    draw = torch.Generator().manual_seed(1)
    tensors = {
        f"t{number}": torch.randint(0, 2, shape, generator=draw).to(dtype)
        for number, (dtype, shape) in enumerate(shapes)
    }
    with CheckpointWriter(folder, planned(tensors), limit) as writer:
        for name in reversed(tensors):
            writer.write(name, tensors[name])
    found = {name: tensor for path in folder.glob("*.safetensors") for name, tensor in load_file(path).items()}
    assert found.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert found[name].dtype == tensor.dtype
        assert found[name].shape == tensor.shape
        assert torch.equal(found[name], tensor)


def test_shards_and_their_index_are_named_and_filled_as_transformers_does(tmp_path):
    tensors = some_tensors()
    # 400 bytes each: two fit under 900
    with CheckpointWriter(tmp_path / "model", planned(tensors), max_shard_bytes=900) as writer:
        for name, tensor in tensors.items():
            writer.write(name, tensor)
    assert files(tmp_path / "model") == [
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
        "model.safetensors.index.json",
    ]
    index = json.loads((tmp_path / "model" / "model.safetensors.index.json").read_text())
    assert index["metadata"] == {"total_parameters": 400, "total_size": 1600}
    assert index["weight_map"]["t1"] == "model-00001-of-00002.safetensors"
    assert index["weight_map"]["t2"] == "model-00002-of-00002.safetensors"
    checkpoint = Checkpoint(tmp_path / "model")
    assert all(torch.equal(checkpoint.tensor(name), tensor) for name, tensor in tensors.items())
    with safe_open(tmp_path / "model" / "model-00001-of-00002.safetensors", "pt") as file:
        assert file.metadata() == {"format": "pt"}


def test_nothing_is_in_place_before_the_end(tmp_path):
    tensors = some_tensors()
    writer = CheckpointWriter(tmp_path / "model", planned(tensors))
    for name, tensor in tensors.items():
        writer.write(name, tensor)
        assert not (tmp_path / "model").exists()
    writer.finish()
    assert files(tmp_path) == ["model"]
    assert files(tmp_path / "model") == ["model.safetensors"]


def test_an_error_in_the_block_leaves_nothing_and_an_earlier_model_as_it_was(tmp_path):
    tensors = some_tensors()
    with CheckpointWriter(tmp_path / "model", planned(tensors)) as writer:
        for name, tensor in tensors.items():
            writer.write(name, tensor)
    before = (tmp_path / "model" / "model.safetensors").read_bytes()
    with pytest.raises(RuntimeError, match="stop"):
        write_and_stop(tmp_path / "model", tensors)
    assert files(tmp_path) == ["model"]
    assert files(tmp_path / "model") == ["model.safetensors"]
    assert (tmp_path / "model" / "model.safetensors").read_bytes() == before


def test_a_model_in_one_file_replaces_one_in_shards(tmp_path):
    tensors = some_tensors()
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "tokenizer.json").write_text("{}")
    for limit in (500, None):
        with CheckpointWriter(tmp_path / "model", planned(tensors), limit) as writer:
            for name, tensor in tensors.items():
                writer.write(name, tensor)
    # an index left behind would win over the new file
    assert files(tmp_path / "model") == ["model.safetensors", "tokenizer.json"]


def test_a_disk_that_fills_up_is_one_line_and_leaves_nothing(tmp_path, monkeypatch):
    tensors = some_tensors()
    written = []

    def write_all(file, tensor):
        if written:
            raise OSError(errno.ENOSPC, "No space left on device")
        written.append(file.write(b"half"))

    monkeypatch.setattr(writer_module, "_write_all", write_all)
    with pytest.raises(
        WeightsError, match=r"was not written: No space left on device\. Nothing was changed"
    ) as caught:
        write(tmp_path / "model", tensors)
    assert "\n" not in str(caught.value)
    assert written
    assert files(tmp_path) == []


def test_a_disk_without_room_is_refused_before_anything_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr(writer_module.shutil, "disk_usage", lambda path: SimpleNamespace(free=1599))
    with pytest.raises(
        WeightsError, match=r"model was not written: the weights need 1\.6 kB, the disk has 1\.6 kB free"
    ):
        CheckpointWriter(tmp_path / "model", planned(some_tensors()))
    assert files(tmp_path) == []


def test_a_file_where_the_folder_should_be_is_refused(tmp_path):
    (tmp_path / "model").write_text("a file")
    with pytest.raises(WeightsError, match="model is a file; give a folder"):
        CheckpointWriter(tmp_path / "model", planned(some_tensors()))
    assert files(tmp_path) == ["model"]
