"""Recordings of every kind become mono waves at the codec's rate, or a clear refusal."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import soundfile

from slm_plugin.errors import AudioError
from slm_plugin.speech.audio import decode, prepare, resample


def sine(rate_hz: int, seconds: float = 0.5, frequency_hz: float = 440.0) -> np.ndarray:
    time_N = np.arange(int(rate_hz * seconds)) / rate_hz
    return (0.5 * np.sin(2 * np.pi * frequency_hz * time_N)).astype(np.float32)


def file_bytes(wave: np.ndarray, rate_hz: int, form: str = "WAV", subtype: str | None = None) -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, wave, rate_hz, format=form, subtype=subtype)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("form", "subtype"),
    [("WAV", "PCM_16"), ("WAV", "FLOAT"), ("WAV", "PCM_U8"), ("FLAC", None), ("OGG", "VORBIS"), ("MP3", None)],
)
def test_every_common_form_is_read(form: str, subtype: str | None) -> None:
    wave_NC, rate_hz = decode(file_bytes(sine(16_000), 16_000, form, subtype))
    assert rate_hz == 16_000
    assert wave_NC.dtype == np.float32
    # lossy forms may pad, all keep the loudness: .5 / sqrt(2) = .354
    assert float(np.sqrt((wave_NC[1_000:7_000] ** 2).mean())) == pytest.approx(0.354, abs=0.02)


def test_a_path_is_read_like_its_bytes(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(file_bytes(sine(8_000), 8_000))
    assert np.array_equal(decode(tmp_path / "a.wav")[0], decode(file_bytes(sine(8_000), 8_000))[0])


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", "has no bytes"), (b"not audio", "cannot be read"), (b"RIFF\x00\x00\x00\x00WAVE", "cannot be read")],
)
def test_what_is_no_recording_is_refused_with_the_accepted_forms(content: bytes, message: str) -> None:
    with pytest.raises(AudioError, match=rf"{message}.*wav, flac, ogg, opus, mp3, m4a"):
        decode(content)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(AudioError, match=r"none\.wav does not exist"):
        decode(tmp_path / "none.wav")


def test_long_recordings_and_large_files_are_refused() -> None:
    content = file_bytes(sine(16_000, 2.0), 16_000)
    with pytest.raises(AudioError, match=r"longer than the limit of 1\.5 seconds"):
        decode(content, max_seconds=1.5)
    assert len(decode(content, max_seconds=2.0)[0]) == 32_000
    with pytest.raises(AudioError, match=f"has {len(content)} bytes, more than the limit of 100"):
        decode(content, max_bytes=100)


def test_an_unknown_rate_is_refused() -> None:
    with pytest.raises(AudioError, match="sampling rate of the recording is not known"):
        prepare(sine(16_000), None, 16_000)


@pytest.mark.parametrize("rate_hz", [0, -8_000, 4_000, 7_999, 10_000_000])
def test_rates_out_of_range_are_refused(rate_hz: int) -> None:
    with pytest.raises(AudioError, match="use 8000 to 768000 Hz"):
        prepare(np.zeros(100_000, np.float32), rate_hz, 16_000)


@pytest.mark.parametrize("rate_hz", [8_000, 11_025, 22_050, 44_100, 48_000])
def test_other_rates_are_resampled(rate_hz: int) -> None:
    prepared_N = prepare(sine(rate_hz), rate_hz, 16_000)
    assert prepared_N.dtype == np.float32
    assert abs(len(prepared_N) - 8_000) <= 1
    expected_N = sine(16_000)[1_000:7_000]
    assert np.abs(prepared_N[1_000:7_000] - expected_N).max() < 2e-3


def test_the_same_rate_changes_nothing() -> None:
    assert np.array_equal(prepare(sine(16_000), 16_000, 16_000), sine(16_000))
    assert np.array_equal(resample(sine(16_000), 16_000, 16_000), sine(16_000))


def test_channels_are_averaged() -> None:
    # (.2 + .6) / 2 = .4
    stereo = np.stack([np.full(800, 0.2), np.full(800, 0.6)], axis=1)
    assert prepare(stereo, 16_000, 16_000) == pytest.approx(0.4)


def test_opposite_channels_give_the_first_instead_of_silence() -> None:
    wave_N = sine(16_000)
    assert np.array_equal(prepare(np.stack([wave_N, -wave_N], axis=1), 16_000, 16_000), wave_N)


def test_silent_stereo_is_silent() -> None:
    assert np.abs(prepare(np.zeros((800, 2), np.float32), 16_000, 16_000)).max() == 0.0


def test_more_than_eight_channels_are_refused() -> None:
    with pytest.raises(AudioError, match="9 channels is not supported; use 1 to 8"):
        prepare(np.zeros((800, 9), np.float32), 16_000, 16_000)
    with pytest.raises(AudioError, match="3 dimensions"):
        prepare(np.zeros((8, 2, 2), np.float32), 16_000, 16_000)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_samples_that_are_no_numbers_are_refused_by_position(bad: float) -> None:
    wave_N = sine(16_000)
    wave_N[17] = bad
    with pytest.raises(AudioError, match=r"sample 17 .* not a finite number"):
        prepare(wave_N, 16_000, 16_000)


@pytest.mark.parametrize(
    ("dtype", "value", "expected"),
    [(np.int16, 16_384, 0.5), (np.int32, -(2**30), -0.5), (np.uint8, 192, 0.5), (np.uint8, 128, 0.0)],
)
def test_integers_are_scaled(dtype: type, value: int, expected: float) -> None:
    assert prepare(np.full(800, value, dtype), 16_000, 16_000) == pytest.approx(expected)


def test_other_types_are_refused() -> None:
    with pytest.raises(AudioError, match="samples of type complex128 are not audio"):
        prepare(np.zeros(800, complex), 16_000, 16_000)


@pytest.mark.parametrize("n_samples", [0, 1, 399])
def test_empty_and_very_short_recordings_are_empty(n_samples: int) -> None:
    assert prepare(np.ones(n_samples, np.float32), 16_000, 16_000).shape == (0,)


def test_a_duration_limit_holds_after_decoding_too() -> None:
    with pytest.raises(AudioError, match=r"lasts 0\.5 seconds, more than the limit of 0\.4"):
        prepare(sine(16_000), 16_000, 16_000, max_seconds=0.4)
