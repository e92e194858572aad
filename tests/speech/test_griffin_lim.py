"""Griffin-Lim on a fixed grid of blocks."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slm_plugin.speech.griffin_lim import GriffinLim, GriffinLimStream


def amplitudes_of(wave_N: np.ndarray, grid: GriffinLim, n_frames: int) -> np.ndarray:
    """Return the amplitude spectra of a wave on the synthesiser's own grid."""
    before = grid.window // 2 - grid.hop // 2
    padded = np.pad(wave_N, (before, grid.window))
    window = np.hanning(grid.window + 1)[:-1]
    frames = [padded[t * grid.hop : t * grid.hop + grid.window] * window for t in range(n_frames)]
    return np.abs(np.fft.rfft(frames, grid.n_fft))


def test_a_sine_keeps_its_frequency_and_strength() -> None:
    grid = GriffinLim()
    time_N = np.arange(8_000) / 16_000
    wave = grid.synthesise(amplitudes_of(0.5 * np.sin(2 * np.pi * 1_000 * time_N), grid, 50))
    middle = wave[2_000:6_000]
    spectrum = np.abs(np.fft.rfft(middle * np.hanning(len(middle))))
    assert spectrum.argmax() * 16_000 / len(middle) == pytest.approx(1_000, abs=4)
    # a sine of amplitude .5 has power .125
    assert float((middle**2).mean()) == pytest.approx(0.125, rel=0.1)


def test_the_wave_has_a_hop_per_frame() -> None:
    grid = GriffinLim()
    for n_frames in (1, 8, 9, 10, 15, 16, 60):
        assert grid.synthesise(np.ones((n_frames, 321))).shape == (n_frames * 160,)


def test_no_frames_give_no_samples() -> None:
    assert GriffinLim().synthesise(np.zeros((0, 321))).shape == (0,)


def test_silence_stays_silent() -> None:
    assert np.abs(GriffinLim().synthesise(np.zeros((20, 321)))).max() == 0.0


@settings(max_examples=25, deadline=None)
@given(cuts=st.lists(st.integers(0, 70), max_size=8), n_frames=st.integers(0, 70), seed=st.integers(0, 2**16))
def test_every_cutting_gives_the_same_wave(cuts: list[int], n_frames: int, seed: int) -> None:
    amplitudes_TF = np.random.default_rng(seed).random((n_frames, 321)) * 20
    whole = GriffinLim().synthesise(amplitudes_TF)
    borders = [0, *sorted(min(cut, n_frames) for cut in cuts), n_frames]
    stream = GriffinLimStream(GriffinLim())
    parts = [stream.push(amplitudes_TF[a:b]) for a, b in pairwise(borders)]
    pieces = np.concatenate([*parts, stream.finish()])
    assert pieces.shape == whole.shape
    assert np.abs(pieces - whole).max(initial=0.0) <= 1e-5


def test_the_first_sound_needs_only_the_first_block_and_its_look_ahead() -> None:
    grid = GriffinLim(first_block=9, look_ahead=6)
    stream = GriffinLimStream(grid)
    assert len(stream.push(np.ones((14, 321)))) == 0
    # nine hops are settled, less the 240 samples by which the first window begins before the output
    assert len(stream.push(np.ones((1, 321)))) == 9 * 160 - 240
