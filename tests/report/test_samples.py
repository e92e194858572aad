from __future__ import annotations

import base64
import io
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from slm_plugin.plugins import Registry
from slm_plugin.report.content import Example, Report, Samples
from slm_plugin.report.samples import Sounds, folded, spoken, wav_bytes, with_audio
from slm_plugin.speech.codecs import load_codec
from slm_plugin.vocabulary import units_to_text


def read(uri: str) -> tuple[np.ndarray, int]:
    return soundfile.read(io.BytesIO(base64.b64decode(uri.removeprefix("data:audio/wav;base64,"))))


def test_runs_of_units_are_folded_and_text_is_kept():
    text = "seven<|7|><|67|> is <|3|>"
    assert folded(text) == [("seven", 0), ("<|7|><|67|>", 2), (" is ", 0), ("<|3|>", 1)]


@given(st.lists(st.one_of(st.text(), st.lists(st.integers(0, 99), min_size=1).map(units_to_text))))
def test_folding_loses_nothing(parts: list[str]):
    text = "".join(parts)
    assert "".join(part for part, _ in folded(text)) == text


def test_the_audio_of_an_answer_is_what_the_codec_makes_of_its_units(report: Report, registry: Registry):
    codec = load_codec("tiny", registry)
    (example,) = next(found for found in report.runs[0].samples if found.skill == "spoken").examples
    wave_N, rate_hz = read(report.audio[example.audio])
    assert example.units == 4
    assert rate_hz == codec.sample_rate_hz
    assert example.seconds == len(wave_N) / rate_hz
    np.testing.assert_allclose(wave_N, np.clip(codec.decode([3, 1, 7, 2]), -1, 1), atol=1 / 32767)


def test_no_more_than_the_limit_is_put_into_the_page(registry: Registry):
    sounds = Sounds(load_codec("tiny", registry), limit=1)
    example = Example("a", "b", "<|1|><|2|>", 2)
    found = with_audio(Samples("sqa", "spoken", [example, example]), sounds)
    assert [example.audio for example in found.examples] == ["audio-0", None]
    assert (len(sounds.found), sounds.refused) == (1, 1)


def test_units_that_the_codec_does_not_have_are_noted(registry: Registry):
    sounds = Sounds(load_codec("tiny", registry), limit=5)
    assert sounds.of_units([1, 4000]) is None
    assert "4000" in sounds.errors[0]


def test_recordings_of_a_run_are_put_into_the_page(tmp_path: Path):
    (tmp_path / "question.wav").write_bytes(wav_bytes(np.zeros(1600, np.float32), 16_000))
    sounds = Sounds(None, limit=0)
    assert spoken(tmp_path, "run-0", sounds) == {"question.wav": "run-0-question"}
    wave_N, rate_hz = read(sounds.found["run-0-question"])
    assert (len(wave_N), rate_hz) == (1600, 16_000)


@pytest.mark.parametrize("amplitude", [0.5, 3.0])
def test_a_wave_is_written_with_16_bits_and_clipped(amplitude: float):
    wave_N, _ = soundfile.read(io.BytesIO(wav_bytes(np.full(10, amplitude, np.float32), 16_000)))
    np.testing.assert_allclose(wave_N, min(amplitude, 1.0), atol=2 / 32767)
