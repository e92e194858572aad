"""Finding codecs by name and by folder."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from slm_plugin.errors import CodecError
from slm_plugin.plugins import Registry
from slm_plugin.speech.codecs import load_codec
from slm_plugin.speech.mel_kmeans import MelKmeansCodec, load_tiny, slm_register_codecs


@pytest.fixture
def registry() -> Registry:
    registry = Registry()
    slm_register_codecs(registry.codecs.register)
    return registry


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    load_tiny().save(tmp_path / "mine")
    return tmp_path / "mine"


def test_a_registered_name_gives_its_codec(registry: Registry) -> None:
    assert load_codec("tiny", registry).fingerprint == load_tiny().fingerprint


def test_a_folder_gives_the_codec_saved_there(registry: Registry, folder: Path) -> None:
    assert load_codec(str(folder), registry).fingerprint == load_tiny().fingerprint
    assert sorted(path.name for path in folder.iterdir()) == ["codec.safetensors", "config.json"]


def test_saving_replaces_a_folder_and_leaves_nothing_else_behind(folder: Path) -> None:
    load_tiny().save(folder)
    assert [path.name for path in folder.parent.iterdir()] == ["mine"]


def test_an_unknown_name_offers_the_nearest(registry: Registry) -> None:
    with pytest.raises(CodecError, match=r"no codec is called 'tinny' .* Did you mean 'tiny'\? Registered: tiny\."):
        load_codec("tinny", registry)


def test_a_folder_without_config_is_no_codec_folder(registry: Registry, tmp_path: Path) -> None:
    with pytest.raises(CodecError, match=r"is not a codec folder: it has no config\.json"):
        load_codec(tmp_path, registry)


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"kind": "mel_kmeans"}'])
def test_a_damaged_config_is_refused(registry: Registry, folder: Path, text: str) -> None:
    (folder / "config.json").write_text(text)
    with pytest.raises(CodecError, match=r"config\.json"):
        load_codec(folder, registry)


def test_an_unknown_kind_offers_the_known_ones(registry: Registry, folder: Path) -> None:
    change(folder, kind="mel_kmean")
    with pytest.raises(CodecError, match=r"no codec is of kind 'mel_kmean'\. Did you mean 'mel_kmeans'\?"):
        load_codec(folder, registry)


def test_an_unknown_setting_is_refused_with_the_known_ones(registry: Registry, folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    change(folder, settings={**config["settings"], "hopp": 3})
    with pytest.raises(CodecError, match=r"settings\.hopp: unknown key\. Did you mean 'hop'\?"):
        load_codec(folder, registry)


@pytest.mark.parametrize("content", [b"", b"not tensors at all"])
def test_damaged_tensors_are_refused(registry: Registry, folder: Path, content: bytes) -> None:
    (folder / "codec.safetensors").write_bytes(content)
    with pytest.raises(CodecError, match=r"codec\.safetensors cannot be read"):
        load_codec(folder, registry)


def test_missing_tensors_are_refused(registry: Registry, folder: Path) -> None:
    (folder / "codec.safetensors").unlink()
    with pytest.raises(CodecError, match=r"codec\.safetensors cannot be read"):
        load_codec(folder, registry)


def test_content_that_does_not_match_its_fingerprint_is_refused(registry: Registry, folder: Path) -> None:
    change(folder, fingerprint="0123456789ab")
    with pytest.raises(CodecError, match=r"config\.json says 0123456789ab"):
        load_codec(folder, registry)


class Outsider(MelKmeansCodec):
    """A plugin's codec, registered under the kind that its folders name."""


def test_folders_of_a_plugins_codec_are_read_by_its_class(registry: Registry, folder: Path) -> None:
    registry.codecs.register("outsider", Outsider)
    target = folder.with_name("outside")
    shutil.copytree(folder, target)
    change(target, kind="outsider")
    # its reader insists on its own kind, which shows that it was asked
    with pytest.raises(CodecError, match="holds a codec of kind 'outsider', not 'mel_kmeans'"):
        load_codec(target, registry)


def change(folder: Path, **changes: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
