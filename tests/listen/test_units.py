"""``slm units``: units on stdout, their sound and a picture on request."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
from PIL import Image

from slm_plugin.errors import AudioError, CodecError
from slm_plugin.listen.command import units
from slm_plugin.listen.picture import draw, spectrogram
from slm_plugin.speech.mel_kmeans import load_tiny
from slm_plugin.vocabulary import text_to_units


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    wave = load_tiny().decode(np.random.default_rng(0).integers(0, 100, 20).tolist())
    soundfile.write(tmp_path / "a.wav", np.stack([wave, wave], 1), 16_000)
    return tmp_path / "a.wav"


def test_the_units_are_printed_alone_and_what_was_noted_apart(recording: Path, capsys: pytest.CaptureFixture[str]):
    units(recording)
    said = capsys.readouterr()
    wave = soundfile.read(recording, dtype="float32")[0].mean(1)
    assert text_to_units(said.out) == list(load_tiny().encode(wave).values)
    assert said.out.startswith("<|")
    assert "downmixed: the recording had several channels" in said.err


def test_json_has_durations_and_flags(recording: Path, capsys: pytest.CaptureFixture[str]):
    units(recording, as_json=True)
    found = json.loads(capsys.readouterr().out)
    assert len(found["units"]) == len(found["durations"])
    assert found["flags"] == ["downmixed"]
    assert found["fingerprint"] == load_tiny().fingerprint


def test_listening_writes_the_resynthesis_and_a_picture(
    recording: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    units(recording, listen=tmp_path / "out.wav", as_json=True)
    found = json.loads(capsys.readouterr().out)
    wave, rate_hz = soundfile.read(tmp_path / "out.wav", dtype="float32")
    assert rate_hz == 16_000
    assert np.abs(wave - load_tiny().decode(found["units"])).max() < 1e-4
    picture = np.asarray(Image.open(tmp_path / "out.png").convert("RGB"))
    # two wide panels, and not one colour
    assert picture.shape[:2] == (360, 1000)
    assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 100
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.wav", "out.png", "out.wav"]


def test_a_tone_is_loudest_at_its_frequency_in_the_picture_s_numbers():
    tone = np.sin(2 * np.pi * 1_000 * np.arange(16_000) / 16_000)
    power = spectrogram(tone, 16_000)
    # windows of 400 samples: bins of 40 Hz, 1 kHz is bin 25
    assert power.shape[0] == 201
    assert set(power[:, 10:-10].argmax(0)) == {25}
    # 20 log10(1/2): half of the amplitude is at the negative frequency
    assert power[25, 50] == pytest.approx(-6.02, abs=0.1)


def test_an_empty_recording_has_a_picture_too(tmp_path: Path):
    draw(tmp_path / "a.png", {"a": np.zeros(0, np.float32), "b": np.zeros(10, np.float32)}, 16_000)
    assert (tmp_path / "a.png").stat().st_size > 1_000


def test_what_is_wrong_is_said(recording: Path, tmp_path: Path):
    with pytest.raises(CodecError, match="no codec is called 'tinny'"):
        units(recording, codec="tinny")
    with pytest.raises(AudioError, match=r"must end in \.wav, \.flac or \.ogg"):
        units(recording, listen=tmp_path / "out.mp4")
    with pytest.raises(AudioError, match="does not exist"):
        units(tmp_path / "none.wav")
