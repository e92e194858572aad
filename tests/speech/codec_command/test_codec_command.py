"""``slm codec`` end to end, on files in the published layouts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
import soundfile
import torch
from typer.testing import CliRunner

from slm_plugin.cli import make_app
from slm_plugin.errors import CodecError, ConfigError
from slm_plugin.speech.fit import kmeans as fit_module
from slm_plugin.speech.hubert_kmeans import HubertKmeansCodec
from speech_models import (
    LAYER,
    N_UNITS,
    centroids,
    fairseq_names,
    seamless_names,
    speech_network,
    vocoder_network,
    wave,
)

PARTS = ("--encoder", "xlsr2_1b_v2.pt", "--centroids", "kmeans_10k.npy", "--layer", str(LAYER), "--heads", "4")


def slm(*arguments: str) -> str:
    result = CliRunner().invoke(make_app(), ["codec", *arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The three published files of xlsr-10k, narrow."""
    folder = tmp_path_factory.mktemp("published")
    network = speech_network()
    torch.save({"model": fairseq_names(network, 2)}, folder / "xlsr2_1b_v2.pt")
    np.save(folder / "kmeans_10k.npy", centroids(network, N_UNITS).numpy())
    torch.save({"model": seamless_names(vocoder_network())}, folder / "vocoder_v2.pt")
    network.save_pretrained(folder / "network")
    return folder


@pytest.fixture
def here(published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to work in; the published files are beside, by name."""
    for path in published.iterdir():
        (tmp_path / path.name).symlink_to(path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SLM_CODECS", str(tmp_path / "codecs"))
    return tmp_path


@pytest.fixture
def recordings(here: Path) -> Path:
    """Twenty recordings at 16 kHz, one of them broken."""
    (here / "audio" / "deep").mkdir(parents=True)
    for number in range(20):
        place = here / "audio" / ("deep" if number % 2 else "")
        soundfile.write(place / f"{number:02d}.wav", wave(0.3 + 0.05 * number, number), 16_000, subtype="FLOAT")
    (here / "audio" / "deep" / "07.wav").write_bytes(b"RIFF")
    return here / "audio"


def test_published_files_become_the_codec_xlsr_10k(here: Path) -> None:
    said = slm("convert", *PARTS, "--vocoder", "vocoder_v2.pt")
    assert f"{N_UNITS} units, 50 a second" in said
    # whoever converts these files is told their terms, and the codec keeps them
    assert "CC-BY-NC 4.0" in said
    assert "CC-BY-NC 4.0" in slm("show", "xlsr-10k")
    codec = HubertKmeansCodec.load(here / "codecs" / "xlsr-10k")
    assert codec.settings.features.odd_length == "append_one"
    assert codec.settings.vocoder is not None
    assert (codec.settings.vocoder.language, codec.settings.vocoder.speaker) == ("eng", -1)
    network = speech_network()
    odd = np.append(wave(1.0)[:15_759], np.float32(1.0))
    samples = torch.from_numpy(odd).double()
    normalised = ((samples - samples.mean()) / (samples.var(correction=0) + 1e-5).sqrt()).float()
    with torch.inference_mode():
        states = network(normalised[None], output_hidden_states=True).hidden_states[LAYER][0]
        expected = torch.cdist(states, centroids(network, N_UNITS)).argmin(1).tolist()
        vocoder, units = vocoder_network(), torch.tensor([[1, 2, 3, 5, 8]])
        rows = [vocoder.language_embedding(torch.tensor([8])), vocoder.speaker_embedding(torch.tensor([10]))]
        language, speaker = (row[:, :, None].expand(-1, -1, 5) for row in rows)
        codes = torch.cat([language, vocoder.unit_embedding(units).transpose(1, 2), speaker], 1)
        spoken = vocoder.hifi_gan(codes)[0].numpy()
    assert list(codec.encode(wave(1.0)[:15_759]).values) == expected
    np.testing.assert_allclose(codec.decode([1, 2, 3, 5, 8]), spoken, atol=1e-5)


def test_settings_are_changed_without_touching_weights(here: Path) -> None:
    slm("convert", *PARTS, "--vocoder", "vocoder_v2.pt", "--output", "mine")
    before = HubertKmeansCodec.load(Path("mine"))
    weights = (here / "mine" / "encoder.safetensors").stat().st_mtime_ns
    said = slm("configure", "mine", "vocoder.language=deu", "vocoder.lookahead=12")
    assert "the units change" not in said
    assert "language deu" in said
    assert HubertKmeansCodec.load(Path("mine")).fingerprint == before.fingerprint
    said = slm("configure", "mine", "features.dtype=bfloat16", "features.window_s=20.0")
    changed = HubertKmeansCodec.load(Path("mine"))
    assert f"{before.fingerprint} -> {changed.fingerprint}" in said
    assert changed.settings.features.dtype == "bfloat16"
    assert (here / "mine" / "encoder.safetensors").stat().st_mtime_ns == weights


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("features.dtpye=bfloat16", r"unknown setting\. Did you mean 'dtype'\?"),
        ("feature.dtype=bfloat16", r"has no 'feature'\. Did you mean 'features'\?"),
        ("features.dtype=bf16", r"'bf16' is not accepted\. Did you mean 'bfloat16'\?"),
        ("n_units=3", "belongs to the weights"),
        ("network.hidden_size=3", "belongs to the weights"),
        ("vocoder.language=en", "does not speak 'en'"),
        ("dtype", "is no setting; write KEY=VALUE"),
    ],
)
def test_settings_that_do_not_exist_are_refused(here: Path, setting: str, message: str) -> None:
    slm("convert", *PARTS, "--vocoder", "vocoder_v2.pt", "--output", "mine")
    before = (here / "mine" / "config.json").read_text()
    with pytest.raises((CodecError, ConfigError), match=message):
        slm("configure", "mine", setting)
    assert (here / "mine" / "config.json").read_text() == before


def test_agreement_is_measured_on_ones_own_recordings(here: Path, recordings: Path) -> None:
    slm("convert", *PARTS, "--output", "mine")
    (recordings / "deep" / "07.wav").unlink()
    lines = slm("agreement", "mine", "audio", "--window-s", "1.0").splitlines()
    assert lines[0].startswith("19 recordings, ")
    shares = {line.split(":")[0]: float(line.split(": ")[1].split(" %")[0]) for line in lines[1:]}
    assert shares["float32"] == 100.0
    assert 20 < shares["bfloat16"] < 100
    assert 20 < shares["int8"] < 100
    assert 80 < shares["windows of 1 s"] <= 100


def fitted(output: str, *more: str) -> str:
    options = ("--encoder", "network", "--layer", str(LAYER), "--units", "12", "--batch-frames", "100")
    return slm("fit", "audio", *options, "--output", output, *more)


def test_units_of_ones_own_are_fitted_and_broken_recordings_reported(here: Path, recordings: Path) -> None:
    said = fitted("mine")
    assert "12 units, 50 a second" in said
    assert "07.wav" in said
    codec = HubertKmeansCodec.load(Path("mine"))
    assert codec.settings.features.odd_length == "as_is"
    used = {unit for number in range(0, 20, 2) for unit in codec.encode(wave(0.3 + 0.05 * number, number)).values}
    assert len(used) > 6
    # nothing but the codec stays
    assert not (here / ".mine.fit").exists()
    with pytest.raises(CodecError, match="mine exists; give another folder"):
        fitted("mine")


def test_a_stopped_fit_goes_on_and_gives_the_same_units(
    here: Path, recordings: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fit_module, "GROUP", 4)
    fitted("whole", "--epochs", "2")
    written = fit_module._write
    groups: list[int] = []

    def killed(state_file: Path, state: Any) -> None:
        written(state_file, state)
        groups.append(state.n_groups)
        if state.n_groups == 7:
            raise KeyboardInterrupt

    monkeypatch.setattr(fit_module, "_write", killed)
    assert CliRunner().invoke(make_app(), ["codec", *_arguments("stopped")]).exit_code != 0
    assert not (here / "stopped").exists()
    # half a written state must not count
    monkeypatch.setattr(
        fit_module, "_write", lambda file, state: (groups.append(state.n_groups), written(file, state))
    )
    fitted("stopped", "--epochs", "2")
    # ten groups of two epochs: the first seven before the stop, the others behind it
    assert groups == list(range(1, 11))
    for name in ("codec.safetensors", "config.json"):
        assert (here / "stopped" / name).read_bytes() == (here / "whole" / name).read_bytes()


def _arguments(output: str) -> list[str]:
    options = ["--encoder", "network", "--layer", str(LAYER), "--units", "12", "--batch-frames", "100"]
    return ["fit", "audio", *options, "--output", output, "--epochs", "2"]


def test_a_fit_is_not_continued_with_other_settings(
    here: Path, recordings: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    joblib.dump(fit_module.FitState("other", 1, None, np.zeros((0, 0)), 0, np.zeros(12)), here / ".mine.fit")
    with pytest.raises(CodecError, match=r"\.mine\.fit is of a fit with other recordings or settings"):
        fitted("mine")


def test_fewer_frames_than_units_and_no_recordings_are_refused(here: Path, recordings: Path) -> None:
    options = ("--encoder", "network", "--layer", str(LAYER), "--output", "mine")
    with pytest.raises(CodecError, match=r"5000 units need at least as many frames; .* 1 recordings could not"):
        slm("fit", "audio", *options, "--units", "5000")
    (here / "empty").mkdir()
    from slm_plugin.errors import AudioError

    with pytest.raises(AudioError, match="no recordings found in empty"):
        slm("fit", "empty", *options, "--units", "5")
    with pytest.raises(AudioError, match="nowhere does not exist"):
        slm("fit", "nowhere", *options, "--units", "5")


def test_a_fitted_codec_gets_a_vocoder(here: Path, recordings: Path) -> None:
    options = ("--encoder", "network", "--layer", str(LAYER), "--output", "mine")
    slm("fit", "audio", *options, "--units", "30")
    slm(
        "convert",
        "--encoder",
        "network",
        "--layer",
        str(LAYER),
        "--centroids",
        "mine/codec.safetensors",
        "--vocoder",
        "vocoder_v2.pt",
        "--output",
        "spoken",
        "--licence",
        "my own",
    )
    mine, spoken = HubertKmeansCodec.load(Path("mine")), HubertKmeansCodec.load(Path("spoken"))
    assert mine.fingerprint == spoken.fingerprint
    assert len(spoken.decode([29])) == 320
    licences = json.loads(Path("spoken/config.json").read_text())["settings"]["licences"]
    assert licences[0] == "my own"
    assert "CC-BY-NC" in licences[1]
