"""Codecs of a speech network, k-means and a vocoder: units, waves, folders, names, fingerprints."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from slm_plugin.errors import CodecError, VocabularyError
from slm_plugin.plugins import Registry
from slm_plugin.speech.codecs import load_codec
from slm_plugin.speech.features.network import fit_names, network_config
from slm_plugin.speech.features.settings import FeatureSettings
from slm_plugin.speech.hubert_kmeans import HubertKmeansCodec
from slm_plugin.speech.hubert_settings import HubertKmeansSettings
from slm_plugin.speech.parts import CENTROIDS, ENCODER, VOCODER, PartsInMemory, digest
from slm_plugin.speech.protocol import BatchedCodec, VoicedCodec, decode_batch, encode_batch
from slm_plugin.speech.vocoder.settings import VocoderSettings, VocoderShape
from slm_plugin.speech.vocoder.voices import seamless_voices
from speech_models import LAYER, N_UNITS, centroids, speech_network, vocoder_network, wave


def make(folds_runs: bool = False, speaks: bool = True, **features: Any) -> HubertKmeansCodec:
    network, vocoder = speech_network(), vocoder_network()
    config = network_config(network.config.to_dict(), LAYER, "test")
    parts = {
        ENCODER: fit_names(network.state_dict(), config),
        CENTROIDS: {"centroids_KD": centroids(network, N_UNITS)},
        VOCODER: dict(vocoder.state_dict()),
    }
    shape = VocoderShape(n_units=N_UNITS, unit_width=24, language_width=6, speaker_width=5, channels=32)
    settings = HubertKmeansSettings(
        n_units=N_UNITS,
        features=FeatureSettings(layer=LAYER, **features),
        network=config,
        folds_runs=folds_runs,
        vocoder=VocoderSettings(shape=shape, voices=seamless_voices()) if speaks else None,
        licences=["free"],
    )
    return HubertKmeansCodec(settings, PartsInMemory(parts if speaks else {k: parts[k] for k in (ENCODER, CENTROIDS)}))


@pytest.fixture(scope="module")
def codec() -> HubertKmeansCodec:
    return make()


@pytest.fixture
def folder(codec: HubertKmeansCodec, tmp_path: Path) -> Path:
    codec.save(tmp_path / "mine")
    return tmp_path / "mine"


def reference(wave_N: np.ndarray) -> list[int]:
    """The independent way: the whole network, one clip, cdist in double precision."""
    network = speech_network()
    samples = torch.from_numpy(wave_N).double()
    normalised = ((samples - samples.mean()) / (samples.var(correction=0) + 1e-5).sqrt()).float()
    with torch.inference_mode():
        states = network(normalised[None], output_hidden_states=True).hidden_states[LAYER][0]
        return torch.cdist(states.double(), centroids(network, N_UNITS).double()).argmin(1).tolist()


def test_units_are_those_of_the_whole_network_and_plain_distances(codec: HubertKmeansCodec) -> None:
    units = codec.encode(wave(3.0))
    assert list(units.values) == reference(wave(3.0))
    assert units.durations is None
    assert len(set(units.values)) > 10


def test_it_is_what_its_settings_say(codec: HubertKmeansCodec) -> None:
    assert (codec.n_units, codec.rate_hz, codec.sample_rate_hz, codec.folds_runs) == (N_UNITS, 50.0, 16_000, False)
    assert len(codec.fingerprint) == 12
    assert isinstance(codec, BatchedCodec)


def test_many_waves_at_once_give_the_units_of_each(codec: HubertKmeansCodec) -> None:
    waves = [wave(1.0, 1), np.zeros(0, np.float32), wave(2.2, 2), np.ones(399, np.float32), wave(0.7, 3)]
    together = encode_batch(codec, waves)
    assert together == [codec.encode(wave_N) for wave_N in waves]
    assert [len(units.values) for units in together] == [49, 0, 109, 0, 34]


def test_folded_units_never_repeat_and_their_durations_add_up() -> None:
    plain, folded = make().encode(wave(3.0)), make(folds_runs=True).encode(wave(3.0))
    assert folded.durations is not None
    assert np.repeat(folded.values, folded.durations).tolist() == list(plain.values)
    assert all(a != b for a, b in zip(folded.values, folded.values[1:], strict=False))


def test_durations_are_predicted_where_runs_are_folded_and_where_asked(codec: HubertKmeansCodec) -> None:
    units = list(range(20))
    assert len(codec.decode(units)) == 20 * 320
    folding = make(folds_runs=True)
    assert len(folding.decode(units)) > 20 * 320
    assert folding.settings.vocoder is not None
    raw = folding.settings.vocoder.model_copy(update={"predict_durations": False})
    settled = HubertKmeansCodec(folding.settings.model_copy(update={"vocoder": raw}), folding.parts)
    assert len(settled.decode(units)) == 20 * 320


def test_a_stream_gives_the_wave_of_decode_and_a_batch_too(codec: HubertKmeansCodec) -> None:
    units = list(codec.encode(wave(1.2)).values)
    whole = codec.decode(units)
    assert len(whole) == 320 * len(units)
    stream = codec.stream()
    pieces = [stream.push(units[start : start + 7]) for start in range(0, len(units), 7)]
    np.testing.assert_allclose(np.concatenate([*pieces, stream.finish()]), whole, atol=1e-5)
    together = decode_batch(codec, [units, [], units[:5]])
    np.testing.assert_allclose(together[0], whole, atol=1e-5)
    np.testing.assert_allclose(together[2], codec.decode(units[:5]), atol=1e-5)
    assert together[1].shape == codec.decode([]).shape == (0,)


def test_units_outside_the_vocabulary_are_refused(codec: HubertKmeansCodec) -> None:
    with pytest.raises(VocabularyError, match=r"unit 40 at position 2 is outside 0\.\.39"):
        codec.decode([1, 2, 40])


def test_a_codec_without_a_vocoder_listens_and_says_why_it_does_not_speak(codec: HubertKmeansCodec) -> None:
    mute = make(speaks=False)
    assert mute.encode(wave(1.0)) == codec.encode(wave(1.0))
    for speak in (lambda: mute.decode([1]), mute.stream, lambda: mute.with_voice("deu")):
        with pytest.raises(CodecError, match=r"has no vocoder, .*slm codec convert --vocoder"):
            speak()


def test_another_voice_is_another_sound_of_the_same_units(codec: HubertKmeansCodec) -> None:
    german = codec.with_voice("deu")
    assert german.fingerprint == codec.fingerprint
    assert np.abs(german.decode([1, 2, 3]) - codec.decode([1, 2, 3])).max() > 1e-3
    # 10 is the English -1
    np.testing.assert_array_equal(codec.with_voice(speaker=10).decode([1, 2, 3]), codec.decode([1, 2, 3]))
    with pytest.raises(CodecError, match="no speaker 999"):
        codec.with_voice(speaker=999)


def test_voices_are_chosen_by_language_and_speaker(codec: HubertKmeansCodec) -> None:
    assert isinstance(codec, VoicedCodec)
    assert {"eng", "deu"} <= set(codec.voices)
    known = {name: codec.has_voice(name) for name in ("deu", "eng-11", "eng-999", "eng-", "eng-x", "xyz", "")}
    assert known == {
        "deu": True,
        "eng-11": True,
        "eng-999": False,
        "eng-": False,
        "eng-x": False,
        "xyz": False,
        "": False,
    }

    def say(voice: str) -> np.ndarray:
        stream = codec.stream_as(voice)
        return np.concatenate([stream.push([1, 2, 3]), stream.finish()])

    np.testing.assert_allclose(say("deu"), codec.with_voice("deu").decode([1, 2, 3]), atol=1e-5)
    # 10 is the English -1, and the default
    np.testing.assert_allclose(say("eng-10"), codec.decode([1, 2, 3]), atol=1e-5)
    np.testing.assert_allclose(say("eng-11"), codec.with_voice(speaker=11).decode([1, 2, 3]), atol=1e-5)
    assert np.abs(say("eng-11") - say("eng")).max() > 1e-3
    with pytest.raises(CodecError, match="no speaker 999"):
        codec.stream_as("eng-999")
    assert make(speaks=False).voices == []
    assert not make(speaks=False).has_voice("eng")


def test_a_saved_codec_is_the_same_codec(codec: HubertKmeansCodec, folder: Path) -> None:
    assert sorted(path.name for path in folder.iterdir()) == [
        "codec.safetensors",
        "config.json",
        "encoder.safetensors",
        "vocoder.safetensors",
    ]
    again = load_codec(folder, Registry.load(entry_points=False))
    assert isinstance(again, HubertKmeansCodec)
    assert again.fingerprint == codec.fingerprint
    assert again.settings == codec.settings
    assert again.encode(wave(1.0)) == codec.encode(wave(1.0))
    np.testing.assert_array_equal(again.decode([1, 2, 3]), codec.decode([1, 2, 3]))
    again.save(folder)
    assert HubertKmeansCodec.load(folder).decode([5]).shape == (320,)
    assert [path.name for path in folder.parent.iterdir()] == ["mine"]


@pytest.mark.parametrize("name", ["xlsr-10k", "hubert-kmeans"])
def test_codecs_are_found_by_name_where_they_were_put(
    codec: HubertKmeansCodec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv("SLM_CODECS", str(tmp_path))
    registry = Registry.load(entry_points=False)
    with pytest.raises(CodecError, match=f"the codec '{name}' is not at .*{name} .*slm codec") as raised:
        load_codec(name, registry)
    # who is sent to the published files is told their terms
    assert ("CC-BY-NC 4.0" in str(raised.value)) == (name == "xlsr-10k")
    codec.save(tmp_path / name)
    assert load_codec(name, registry).fingerprint == codec.fingerprint


def test_the_number_of_units_is_known_without_reading_weights(folder: Path) -> None:
    (folder / "encoder.safetensors").write_bytes(b"")
    assert HubertKmeansCodec.load(folder).n_units == N_UNITS
    with pytest.raises(CodecError, match=r"encoder\.safetensors cannot be read"):
        HubertKmeansCodec.load(folder).encode(wave(1.0))


def test_everything_that_decides_units_is_in_the_fingerprint_and_nothing_else(codec: HubertKmeansCodec) -> None:
    others = [make(odd_length="append_one"), make(dtype="bfloat16"), make(window_s=20.0), make(folds_runs=True)]
    assert len({codec.fingerprint, *(other.fingerprint for other in others)}) == 5
    assert make(speaks=False).fingerprint == make().fingerprint == codec.fingerprint


def test_a_digest_is_over_names_types_shapes_and_values() -> None:
    zeros = torch.zeros(2, 3)
    digests = [
        digest({"a": zeros}),
        digest({"b": zeros}),
        digest({"a": zeros.int()}),
        digest({"a": zeros.T}),
        digest({"a": zeros + 1}),
        digest({"a": zeros, "b": zeros}),
    ]
    assert len(set(digests)) == 6
    assert digest({"b": zeros, "a": zeros}) == digests[5]
    assert digest({"a": torch.zeros(4, dtype=torch.bfloat16)}) != digest({"a": torch.zeros(4, dtype=torch.float16)})


def change(folder: Path, **changes: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_changed_settings_weights_and_missing_files_are_noticed(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    change(folder, settings={**config["settings"], "folds_runs": True})
    with pytest.raises(CodecError, match="change settings with `slm codec configure`, not by hand"):
        HubertKmeansCodec.load(folder)
    change(folder, settings={**config["settings"], "fold_runs": True})
    with pytest.raises(CodecError, match=r"settings\.fold_runs: unknown key\. Did you mean 'folds_runs'\?"):
        HubertKmeansCodec.load(folder)
    change(folder, **config)
    from safetensors.torch import load_file, save_file

    tensors = load_file(folder / "vocoder.safetensors")
    tensors["hifi_gan.conv_post.bias"] += 1
    save_file(tensors, folder / "vocoder.safetensors")
    with pytest.raises(CodecError, match=r"vocoder\.safetensors: the content has digest .* was changed after"):
        HubertKmeansCodec.load(folder).decode([1])
    (folder / "vocoder.safetensors").unlink()
    with pytest.raises(CodecError, match=r"lacks vocoder\.safetensors"):
        HubertKmeansCodec.load(folder)
    change(folder, digests=None)
    with pytest.raises(CodecError, match="lacks digests"):
        HubertKmeansCodec.load(folder)
    change(folder, kind="mel_kmeans")
    with pytest.raises(CodecError, match="holds a codec of kind 'mel_kmeans', not 'hubert-kmeans'"):
        HubertKmeansCodec.load(folder)


def test_parts_that_do_not_belong_together_are_refused(codec: HubertKmeansCodec) -> None:
    with pytest.raises(CodecError, match="has the parts codec, encoder, got codec, encoder, vocoder"):
        HubertKmeansCodec(codec.settings.model_copy(update={"vocoder": None}), codec.parts)
    with pytest.raises(CodecError, match="the vocoder knows 40 units, the codec has 41"):
        HubertKmeansCodec(codec.settings.model_copy(update={"n_units": 41}), codec.parts)


def test_threads_share_a_codec() -> None:
    shared, expected = make(), make().encode(wave(1.0))
    found: list[Any] = []
    threads = [threading.Thread(target=lambda: found.append(shared.encode(wave(1.0)))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [expected] * 4
