"""espeak-ng through ctypes."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from slm_plugin.errors import SlmError
from slm_plugin.speech.espeak import Espeak


@pytest.fixture(scope="module")
def espeak() -> Espeak:
    pytest.importorskip("espeakng_loader", reason="pip install espeakng-loader")
    return Espeak()


def test_every_word_has_its_span_in_order(espeak: Espeak) -> None:
    spoken = espeak.say("what is two plus three")
    assert [span.word for span in spoken.words] == ["what", "is", "two", "plus", "three"]
    assert spoken.words[0].start_s == 0.0
    for before, after in zip(spoken.words, spoken.words[1:], strict=False):
        assert before.start_s < before.end_s == after.start_s
    assert spoken.words[-1].end_s == pytest.approx(len(spoken.wave_N) / spoken.sample_rate_hz)


def test_the_wave_is_mono_float_and_not_silent(espeak: Espeak) -> None:
    spoken = espeak.say("red")
    assert spoken.sample_rate_hz == 22_050
    assert spoken.wave_N.dtype == np.float32
    assert spoken.wave_N.ndim == 1
    assert 0.05 < float(np.abs(spoken.wave_N).max()) <= 1.0


def test_more_words_a_minute_take_less_time(espeak: Espeak) -> None:
    slow, fast = (len(espeak.say("mountain river", words_per_minute=rate).wave_N) for rate in (120, 240))
    assert fast < 0.75 * slow


def test_nothing_to_say_is_nothing_said(espeak: Espeak) -> None:
    spoken = espeak.say("")
    assert spoken.words == ()
    assert np.abs(spoken.wave_N).max(initial=0.0) == 0.0


def test_an_unknown_voice_is_refused(espeak: Espeak) -> None:
    with pytest.raises(SlmError, match="espeak-ng has no voice 'klingonese'"):
        espeak.say("red", voice="klingonese")


def test_without_the_library_the_message_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "espeakng_loader", None)
    with pytest.raises(SlmError, match="pip install espeakng-loader"):
        Espeak()


def test_fresh_processes_say_the_same_bytes(espeak: Espeak) -> None:
    program = (
        "import hashlib; from slm_plugin.speech.espeak import Espeak; e = Espeak();"
        "print(hashlib.sha256(b''.join(e.say(t).wave_N.tobytes() for t in ('red dog', 'red dog', 'two'))).hexdigest())"
    )
    runs = [subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True) for _ in "ab"]
    assert runs[0].stdout == runs[1].stdout
    assert len(runs[0].stdout.strip()) == 64
