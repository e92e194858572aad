import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from slm_serve.fakes import FakeCodec
from slm_serve.voice import RATE_HZ, Voice, pcm16


def test_samples_are_rounded_clipped_and_little_endian():
    # 0.5 * 32767 = 16383.5, which rounds to the even 16384; 2 is clipped to 32767
    wave = np.array([0.0, 0.5, -1.0, 2.0, -2.0])
    assert np.frombuffer(pcm16(wave), "<i2").tolist() == [0, 16384, -32767, 32767, -32767]


@given(units=st.lists(st.integers(0, 49), max_size=30), data=st.data())
def test_the_cutting_of_the_units_never_matters(units, data):
    spots = sorted(data.draw(st.sets(st.integers(0, len(units)), max_size=5)))
    voice, whole = Voice(FakeCodec()), Voice(FakeCodec())
    pieces = [voice.push(units[a:b]) for a, b in zip([0, *spots], [*spots, len(units)], strict=True)]
    told = b"".join(pieces) + voice.finish()
    assert told == whole.push(units) + whole.finish()
    # 320 samples at 16 kHz are 480 at 24 kHz, two bytes each
    assert len(told) == 2 * 480 * len(units)


def test_a_tone_keeps_its_pitch():
    voice = Voice(FakeCodec())
    # unit 19 is 20 periods in 20 ms: 1 kHz
    samples = np.frombuffer(voice.push([19] * 50) + voice.finish(), "<i2") / 32767
    spectrum = np.abs(np.fft.rfft(samples))
    assert spectrum.argmax() * RATE_HZ / len(samples) == pytest.approx(1000)
    assert samples.std() == pytest.approx(0.3 / np.sqrt(2), rel=0.01)


def test_a_voice_that_never_spoke_says_nothing():
    assert Voice(FakeCodec()).finish() == b""
