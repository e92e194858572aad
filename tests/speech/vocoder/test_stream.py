"""A stream's pieces joined are the whole, however its units are cut."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slm_plugin.errors import VocabularyError
from slm_plugin.speech.vocoder.settings import VocoderSettings, VocoderShape
from slm_plugin.speech.vocoder.stream import VocoderStream, advance
from slm_plugin.speech.vocoder.synthesis import Synthesiser
from slm_plugin.speech.vocoder.voices import seamless_voices
from speech_models import N_UNITS, vocoder_network

SHAPE = VocoderShape(n_units=N_UNITS, unit_width=24, language_width=6, speaker_width=5, channels=32)
NETWORK = vocoder_network()


def synthesiser(predict: bool = False, **more: Any) -> Synthesiser:
    return Synthesiser(VocoderSettings(shape=SHAPE, voices=seamless_voices(), **more), NETWORK, predict)


def draw(n_units: int, seed: int = 0) -> list[int]:
    return np.random.default_rng(seed).integers(0, N_UNITS, n_units).tolist()


def speak(voice: Synthesiser, units: list[int], cuts: list[int]) -> list[np.ndarray]:
    stream = VocoderStream(voice)
    edges = [0, *sorted(cuts), len(units)]
    return [*(stream.push(units[first:end]) for first, end in pairwise(edges)), stream.finish()]


def snr_db(exact: np.ndarray, other: np.ndarray) -> float:
    """Power of the exact wave over that of the difference, in decibels."""
    error = float(((exact - other) ** 2).sum())
    return float(10 * np.log10((exact**2).sum() / error)) if error else float("inf")


@settings(max_examples=25, deadline=None)
@given(
    n_units=st.integers(0, 70),
    cuts=st.lists(st.integers(0, 70), max_size=8),
    predict=st.booleans(),
    first_block=st.integers(1, 9),
    last_block=st.sampled_from([1, 7, 64]),
)
def test_any_cut_gives_the_whole(n_units: int, cuts: list[int], predict: bool, first_block: int, last_block: int):
    units = draw(n_units, seed=n_units)
    voice = synthesiser(predict, first_block=first_block, last_block=last_block)
    joined = np.concatenate(speak(voice, units, [min(cut, n_units) for cut in cuts]))
    whole = voice.wave(units)
    assert joined.shape == whole.shape
    np.testing.assert_allclose(joined, whole, atol=1e-5)


@pytest.mark.parametrize("predict", [False, True])
def test_unit_by_unit_gives_the_whole(predict: bool) -> None:
    units = draw(80)
    voice = synthesiser(predict)
    np.testing.assert_allclose(np.concatenate(speak(voice, units, list(range(80)))), voice.wave(units), atol=1e-5)


def test_the_first_sound_comes_with_the_22nd_unit() -> None:
    pieces = speak(synthesiser(), draw(60), list(range(60)))
    # the first push is empty; a frame needs 21 more behind it
    assert [len(piece) for piece in pieces[:24]] == [0] * 22 + [320, 0]


def test_pieces_double_until_they_are_large_enough() -> None:
    pieces = speak(synthesiser(last_block=8), draw(80), list(range(80)))
    heard = [len(piece) // 320 for piece in pieces[:-1] if len(piece)]
    assert heard == [1, 2, 4, 8, 8, 8, 8, 8, 8]


def test_less_lookahead_speaks_earlier_at_the_price_of_exactness() -> None:
    units = draw(90)
    whole = synthesiser().wave(units)
    ratios = []
    for lookahead in (2, 6, 12, 21):
        pieces = speak(synthesiser(lookahead=lookahead), units, list(range(90)))
        first = next(number for number, piece in enumerate(pieces) if len(piece))
        # the push with number 0 is empty, so the unit that completes a frame's lookahead comes with this one
        assert first == lookahead + 1
        joined = np.concatenate(pieces)
        assert joined.shape == whole.shape
        ratios.append(snr_db(whole, joined))
    assert ratios[0] < ratios[1] < ratios[2] < ratios[3]
    assert ratios[3] > 90


def test_memory_does_not_grow_with_what_was_said() -> None:
    stream = VocoderStream(synthesiser(predict=True))
    for _ in range(30):
        stream.push(draw(20))
    assert len(stream._frames) <= 21 + 21 + 64 + 20 * 50
    assert len(stream._units) <= 4


def test_a_unit_outside_the_vocabulary_is_refused_and_nothing_of_its_push_is_taken() -> None:
    voice = synthesiser()
    stream = VocoderStream(voice)
    units = draw(30)
    first = stream.push(units)
    with pytest.raises(VocabularyError, match=r"unit 40 at position 1 is outside 0\.\.39"):
        stream.push([1, N_UNITS])
    np.testing.assert_allclose(np.concatenate([first, stream.finish()]), voice.wave(units), atol=1e-5)


@settings(max_examples=15, deadline=None)
@given(data=st.data(), predict=st.booleans())
def test_streams_moved_on_together_say_what_each_says_alone(data: st.DataObject, predict: bool) -> None:
    voices = [synthesiser(predict), synthesiser(predict, language="deu")]
    lengths = data.draw(st.lists(st.integers(0, 60), min_size=1, max_size=4))
    spoken = [draw(length, seed) for seed, length in enumerate(lengths)]
    streams = [VocoderStream(voices[number % 2]) for number in range(len(spoken))]
    cuts = sorted(data.draw(st.lists(st.integers(0, 60), max_size=4)))
    parts: list[list[np.ndarray]] = [[] for _ in spoken]
    steps = list(pairwise([0, *cuts, 60]))
    for step, (first, end) in enumerate(steps):
        last = [step == len(steps) - 1] * len(spoken)
        moved = advance(streams, [units[first:end] for units in spoken], last)
        for number, wave in enumerate(moved):
            parts[number].append(wave)
    for number, units in enumerate(spoken):
        whole = voices[number % 2].wave(units)
        joined = np.concatenate(parts[number])
        assert joined.shape == whole.shape
        np.testing.assert_allclose(joined, whole, atol=1e-5)


def test_a_wrong_unit_moves_no_stream_on() -> None:
    streams = [VocoderStream(synthesiser()) for _ in range(2)]
    with pytest.raises(VocabularyError):
        advance(streams, [[1], [N_UNITS]], [True, True])
    assert [len(part) for part in advance(streams, [[2], [3]], [True, True])] == [320, 320]
