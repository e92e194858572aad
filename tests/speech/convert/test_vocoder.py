"""Vocoders from the files they are published in, and only their bytes of those that hold more."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import fsspec
import pytest
import torch
from safetensors.torch import load_file, save_file

from slm_plugin.errors import CodecError
from slm_plugin.speech.convert.byte_ranges import RemoteFolder, fetch_tensors
from slm_plugin.speech.convert.vocoder import read_vocoder
from slm_plugin.speech.vocoder.voices import seamless_voices
from speech_models import VOCODER_SIZES, seamless_names, vocoder_network, write_seamless_checkpoint


@pytest.fixture(scope="module")
def network() -> Any:
    return vocoder_network()


@pytest.fixture
def folder(tmp_path: Path, network: Any) -> Path:
    write_seamless_checkpoint(tmp_path / "seamless", network)
    return tmp_path / "seamless"


def check(found: dict[str, torch.Tensor], network: Any, exact: bool) -> None:
    wanted = network.state_dict()
    assert found.keys() == wanted.keys()
    for name, tensor in wanted.items():
        torch.testing.assert_close(found[name], tensor, atol=0.0 if exact else 1e-6, rtol=0.0 if exact else 1e-5)


def test_the_file_of_seamless_gives_the_network_of_transformers(tmp_path: Path, network: Any) -> None:
    torch.save({"model": seamless_names(network)}, tmp_path / "vocoder_v2.pt")
    vocoder = read_vocoder(str(tmp_path / "vocoder_v2.pt"), None, trusted=False)
    check(vocoder.tensors, network, exact=False)
    shape = vocoder.shape
    assert (shape.n_units, shape.unit_width) == (VOCODER_SIZES["unit_hifi_gan_vocab_size"], 24)
    assert (shape.n_languages, shape.n_speakers, shape.channels, shape.hop) == (36, 200, 32, 320)
    assert (shape.upsample_rates, shape.block_kernels) == ([5, 4, 4, 2, 2], [3, 7, 11])
    assert vocoder.voices == seamless_voices()


def test_the_unit_hifi_gan_of_fairseq_is_one_without_languages_and_speakers(tmp_path: Path) -> None:
    network = vocoder_network(lang_embed_dim=0, spkr_embed_dim=0, vocoder_num_langs=1, vocoder_num_spkrs=1)
    named = {name.removeprefix("code_generator."): tensor for name, tensor in seamless_names(network).items()}
    generator = {name: tensor for name, tensor in named.items() if not name.startswith(("lang", "spkr"))}
    torch.save({"generator": generator}, tmp_path / "g_00500000")
    said = {"upsample_rates": [5, 4, 4, 2, 2], "resblock_dilation_sizes": [[1, 3, 5]] * 3}
    (tmp_path / "config.json").write_text(json.dumps(said))
    vocoder = read_vocoder(str(tmp_path / "g_00500000"), tmp_path / "config.json", trusted=False)
    assert (vocoder.shape.language_width, vocoder.shape.speaker_width) == (0, 0)
    wanted = {name: t for name, t in network.state_dict().items() if not name.startswith(("lang", "speaker"))}
    assert vocoder.tensors.keys() == wanted.keys()


def test_of_a_sharded_checkpoint_only_the_vocoder_is_read(tmp_path: Path, network: Any) -> None:
    folder = tmp_path / "seamless"
    n_vocoder = write_seamless_checkpoint(folder, network, others=4_000_000)
    vocoder = read_vocoder(str(folder), None, trusted=False)
    check(vocoder.tensors, network, exact=True)
    fetched = fetch_tensors(RemoteFolder(str(folder)), "vocoder.")
    # the first of three shards is not opened; of the others the headers and the vocoder's bytes, as two blocks
    on_disk = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    assert n_vocoder < fetched.n_bytes < n_vocoder + 60_000 < on_disk / 10
    assert fetched.n_requests == 2 * (2 + 1)


def test_through_fsspec_the_same_bytes_are_read_and_no_others(folder: Path, network: Any, monkeypatch: Any) -> None:
    memory = fsspec.filesystem("memory")
    for path in folder.iterdir():
        memory.pipe_file(f"/seamless/{path.name}", path.read_bytes())
    asked: list[tuple[str, int | None, int | None]] = []
    plain = type(memory).cat_file

    def noted(self: Any, path: str, start: int | None = None, end: int | None = None, **more: Any) -> bytes:
        asked.append((path, start, end))
        return plain(self, path, start=start, end=end, **more)

    monkeypatch.setattr(type(memory), "cat_file", noted)
    vocoder = read_vocoder("memory://seamless", None, trusted=False)
    check(vocoder.tensors, network, exact=True)
    weights = [(start, end) for path, start, end in asked if path.endswith(".safetensors")]
    assert len(weights) == 6
    assert all(start is not None and end is not None for start, end in weights)
    memory.rm("/seamless", recursive=True)


def test_distant_tensors_are_fetched_apart_and_near_ones_together(tmp_path: Path) -> None:
    parts = {"vocoder.a": torch.ones(3), "x.big": torch.zeros(600_000), "vocoder.z": torch.ones(4)}
    save_file(parts, tmp_path / "model.safetensors")
    fetched = fetch_tensors(RemoteFolder(str(tmp_path)), "vocoder.")
    assert {name: tensor.tolist() for name, tensor in fetched.tensors.items()} == {"a": [1.0] * 3, "z": [1.0] * 4}
    # at 2.4 MB apart, or neighbours, depending on the order in the file, which safetensors decides
    assert fetched.n_requests in (3, 4)
    assert fetched.n_bytes < 2_400_000


def test_the_languages_of_a_checkpoint_win(folder: Path) -> None:
    codes = {"vie": 0, "eng": 1, "deu": 2}
    (folder / "generation_config.json").write_text(json.dumps({"vocoder_lang_code_to_id": codes}))
    voices = read_vocoder(str(folder), None, trusted=False).voices
    assert voices.languages == ["vie", "eng", "deu"]
    assert voices.first_speakers == {"vie": 69, "eng": 10, "deu": 9}


def rewrite(folder: Path, change: Any) -> None:
    for path in folder.glob("*.safetensors"):
        tensors = load_file(path)
        change(tensors)
        save_file(tensors, path)
    index = {name: path.name for path in folder.glob("*.safetensors") for name in load_file(path)}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))


def test_a_missing_tensor_is_an_error_and_not_a_new_initialisation(folder: Path) -> None:
    rewrite(folder, lambda tensors: tensors.pop("vocoder.hifi_gan.conv_post.bias", None))
    with pytest.raises(CodecError, match=r"hifi_gan\.conv_post\.bias is missing"):
        read_vocoder(str(folder), None, trusted=False)


def test_a_tensor_that_belongs_nowhere_is_an_error(folder: Path) -> None:
    rewrite(folder, lambda tensors: tensors.update({"vocoder.extra.weight": torch.zeros(2)}))
    with pytest.raises(CodecError, match=r"extra\.weight belongs nowhere"):
        read_vocoder(str(folder), None, trusted=False)


def test_a_checkpoint_without_a_vocoder_and_a_damaged_one_are_refused(folder: Path, tmp_path: Path) -> None:
    save_file({"other": torch.zeros(2)}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(CodecError, match=r"holds no tensor whose name begins with 'vocoder\.'"):
        read_vocoder(str(tmp_path), None, trusted=False)
    for path in folder.glob("model-*.safetensors"):
        path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(CodecError, match="ends too early"):
        read_vocoder(str(folder), None, trusted=False)
    with pytest.raises(CodecError, match=r"config\.json cannot be read"):
        read_vocoder(str(tmp_path / "nowhere"), None, trusted=False)
    torch.save({"model": {"code_generator.dict.weight": torch.zeros(2, 2)}}, tmp_path / "v.pt")
    with pytest.raises(CodecError, match="is not a unit HiFi-GAN with a duration predictor"):
        read_vocoder(str(tmp_path / "v.pt"), None, trusted=False)
    with pytest.raises(CodecError, match="cannot be opened"):
        RemoteFolder("nosuch://place")
