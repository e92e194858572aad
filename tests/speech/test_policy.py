"""What is noted about a recording, and that streams are treated like whole recordings."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from slm_plugin.errors import AudioError
from slm_plugin.speech.policy import FLAGS, AudioPolicy, condition
from slm_plugin.speech.stream import AudioStream, blocks_of

PLAIN = AudioPolicy()


def tone(rate_hz: int = 16_000, seconds: float = 0.5, size: float = 0.5) -> np.ndarray:
    return size * np.sin(2 * np.pi * 440.0 * np.arange(int(rate_hz * seconds)) / rate_hz)


def two(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    return np.stack([left, right], 1)


NAN_WAVE = np.where(np.arange(8_000) == 100, np.nan, tone())
CASES = {
    "resampled": (tone(44_100), 44_100, PLAIN),
    "band_limited": (tone(8_000), 8_000, PLAIN),
    "downmixed": (two(tone(), 0.5 * tone()), 16_000, PLAIN),
    "antiphase": (two(tone(), -tone()), 16_000, PLAIN),
    "non_finite": (NAN_WAVE, 16_000, AudioPolicy(non_finite="zero")),
    # a tone of twice full scale spends 2/3 of its time beyond it: cos(60 degrees) = 1/2
    "clipped": (np.clip(tone(size=2.0), -1, 1), 16_000, PLAIN),
    "out_of_scale": (tone() * 32_768, 16_000, PLAIN),
    "dc_offset": (0.1 * tone() + 0.4, 16_000, PLAIN),
    # -80 dB is 1e-4; a tone of 1e-4 has a root mean square of .7e-4
    "silent": (tone(size=1e-4), 16_000, PLAIN),
    "short": (tone(seconds=0.02), 16_000, PLAIN),
    "long": (tone(seconds=30.5), 16_000, PLAIN),
    "trimmed": (np.concatenate([np.zeros(4_000), tone(), np.zeros(4_000)]), 16_000, AudioPolicy(trim_below_db=-40)),
}


def test_there_is_a_case_for_every_flag():
    assert set(CASES) == set(FLAGS)


@pytest.mark.parametrize("flag", CASES)
def test_a_recording_gets_the_flags_it_deserves_and_no_other(flag: str):
    wave, rate_hz, policy = CASES[flag]
    expected = {flag} | ({"resampled"} if flag == "band_limited" else set())
    assert set(condition(wave, rate_hz, 16_000, policy).flags) == expected


def test_a_plain_recording_has_no_flag_and_stays_bit_for_bit():
    wave_N = tone().astype(np.float32)
    found = condition(wave_N, 16_000, 16_000, PLAIN)
    assert found.flags == ()
    assert np.array_equal(found.wave_N, wave_N)


@pytest.mark.parametrize("frequency_hz", [20.0, 100.0, 1_000.0])
def test_a_tone_at_full_scale_is_loud_and_not_clipped(frequency_hz: float):
    pcm = (32_767 * np.sin(2 * np.pi * frequency_hz * np.arange(16_000) / 16_000)).astype(np.int16)
    assert condition(pcm, 16_000, 16_000, PLAIN).flags == ()


def test_short_recordings_are_empty_or_padded_to_the_first_frame():
    wave_N = tone(seconds=0.02)
    assert len(condition(wave_N, 16_000, 16_000, PLAIN).wave_N) == 0
    # 25 ms at 16 kHz are 400 samples
    assert len(condition(wave_N, 16_000, 16_000, AudioPolicy(short="pad")).wave_N) == 400
    assert len(condition(wave_N[:0], 16_000, 16_000, AudioPolicy(short="pad")).wave_N) == 0


def test_trimming_says_how_much_went_at_the_beginning():
    found = condition(*CASES["trimmed"][:2], 16_000, CASES["trimmed"][2])
    assert found.trimmed_s == pytest.approx(0.25)
    assert len(found.wave_N) == 8_000
    assert found.seconds == pytest.approx(1.0)


def test_numbers_that_are_none_are_refused_unless_zero_is_asked_for():
    with pytest.raises(AudioError, match="sample 100 of the recording is not a finite number"):
        condition(NAN_WAVE, 16_000, 16_000, PLAIN)
    assert condition(NAN_WAVE, 16_000, 16_000, AudioPolicy(non_finite="zero")).wave_N[100] == 0.0


def in_blocks(wave: np.ndarray, rate_hz: int, policy: AudioPolicy, sizes: list[int]) -> tuple[np.ndarray, tuple]:
    stream, parts, position = AudioStream(rate_hz, 16_000, policy), [], 0
    for size in [*sizes, len(wave)]:
        parts.append(stream.push(wave[position : position + size]))
        position = min(len(wave), position + size)
    parts.append(stream.finish())
    return np.concatenate(parts), stream.flags()


@pytest.mark.parametrize("flag", [name for name in CASES if name != "trimmed"])
@settings(max_examples=8, deadline=None)
@given(sizes=st.lists(st.integers(0, 20_000), max_size=6))
def test_a_stream_gives_the_samples_and_flags_of_the_whole(flag: str, sizes: list[int]):
    wave, rate_hz, policy = CASES[flag]
    wave = wave[: 32 * 16_000]
    joined_N, flags = in_blocks(wave, rate_hz, policy, sizes)
    whole = condition(wave, rate_hz, 16_000, policy)
    assert flags == whole.flags
    assert joined_N.shape == whole.wave_N.shape
    assert np.abs(joined_N - whole.wave_N).max(initial=0.0) <= 1e-6 * max(1.0, np.abs(wave[np.isfinite(wave)]).max())


def test_a_padded_stream_is_the_padded_whole():
    policy = AudioPolicy(short="pad")
    joined_N, flags = in_blocks(tone(seconds=0.02), 16_000, policy, [100])
    assert np.array_equal(joined_N, condition(tone(seconds=0.02), 16_000, 16_000, policy).wave_N)
    assert flags == ("short",)


def test_a_stream_refuses_what_a_recording_would_be_refused_for():
    with pytest.raises(AudioError, match="not known"):
        AudioStream(None, 16_000)
    with pytest.raises(AudioError, match="trim_below_db"):
        AudioStream(16_000, 16_000, AudioPolicy(trim_below_db=-40))
    stream = AudioStream(16_000, 16_000, AudioPolicy(max_seconds=0.75))
    stream.push(tone())
    with pytest.raises(AudioError, match=r"more than the limit of 0\.75 seconds"):
        stream.push(tone())
    stream = AudioStream(16_000, 16_000)
    stream.push(tone())
    with pytest.raises(AudioError, match="2 channels, the ones before have 1"):
        stream.push(two(tone(), tone()))


def test_a_file_is_read_in_blocks_and_gives_the_same(tmp_path: Path):
    wave = two(tone(44_100, 2.5), 0.2 * tone(44_100, 2.5))
    soundfile.write(tmp_path / "a.wav", wave, 44_100, subtype="FLOAT")
    stream, parts = AudioStream(44_100, 16_000), []
    for block, rate_hz in blocks_of(tmp_path / "a.wav", 0.3):
        assert rate_hz == 44_100
        parts.append(stream.push(block))
    whole = condition(wave.astype(np.float32), 44_100, 16_000, PLAIN)
    joined_N = np.concatenate([*parts, stream.finish()])
    assert np.abs(joined_N - whole.wave_N).max() < 1e-6
    assert stream.flags() == whole.flags == ("downmixed", "resampled")


def test_a_file_that_is_no_recording_is_refused_in_blocks_too(tmp_path: Path):
    (tmp_path / "a.wav").write_bytes(b"nothing")
    with pytest.raises(AudioError, match=r"a\.wav cannot be read"):
        next(blocks_of(tmp_path / "a.wav"))
    with pytest.raises(AudioError, match="does not exist"):
        next(blocks_of(tmp_path / "b.wav"))
