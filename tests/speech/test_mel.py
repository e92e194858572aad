"""Log-mel frames and cepstra."""

from __future__ import annotations

import numpy as np
import pytest

from slm_plugin.speech.mel import MelFrames, cepstra


def test_filters_are_means_over_neighbouring_bins() -> None:
    filters_MF = MelFrames().filters
    assert filters_MF.shape == (80, 513)
    assert filters_MF.sum(1) == pytest.approx(np.ones(80))
    centres = filters_MF.argmax(1)
    assert (np.diff(centres) >= 0).all()


def test_a_sine_is_loudest_in_the_band_around_it() -> None:
    grid = MelFrames()
    wave_N = np.sin(2 * np.pi * 1_000 * np.arange(16_000) / 16_000).astype(np.float32)
    band = int(grid.log_mel(wave_N)[10].argmax())
    # bin k is at k * 16000 / 1024 Hz
    edges_hz = np.flatnonzero(grid.filters[band]) * 16_000 / 1_024
    assert edges_hz.min() - 16 <= 1_000 <= edges_hz.max() + 16


def test_digital_silence_is_the_floor_in_every_band() -> None:
    assert MelFrames(floor=1e-4).log_mel(np.zeros(4_800, np.float32)) == pytest.approx(np.log(1e-4))


@pytest.mark.parametrize(("n_samples", "n_frames"), [(0, 0), (479, 0), (480, 1), (959, 1), (960, 2), (16_000, 33)])
def test_a_wave_has_one_frame_per_whole_hop(n_samples: int, n_frames: int) -> None:
    assert MelFrames().log_mel(np.ones(n_samples, np.float32)).shape == (n_frames, 80)


def test_a_click_is_seen_by_the_frame_it_lies_in_and_centred_there() -> None:
    grid = MelFrames(hop=480, window=480)
    for frame in (0, 3, 9):
        wave_N = np.zeros(4_800, np.float32)
        wave_N[frame * 480 + 240] = 1.0
        assert int(grid.log_mel(wave_N).sum(1).argmax()) == frame


def test_a_flat_spectrum_has_only_loudness() -> None:
    # coefficient 0 of a constant c over M bands, counted half: c * M / 2; the others vanish
    features = cepstra(np.full((3, 80), 2.0), 13)
    assert features[:, 0] == pytest.approx([80.0, 80.0, 80.0])
    assert features[:, 1:] == pytest.approx(np.zeros((3, 25)), abs=1e-9)


def test_slopes_are_half_the_difference_of_the_neighbours_and_0_at_the_ends() -> None:
    log_mel_TM = np.repeat([[0.0], [1.0], [4.0]], 80, axis=1)
    # loudness 0, 40, 160: slope in the middle (160 - 0) / 2
    assert cepstra(log_mel_TM, 13)[:, 13] == pytest.approx([0.0, 80.0, 0.0])


def test_the_spectrum_of_a_frame_is_the_same_to_the_bit_in_any_company() -> None:
    # phase search turns a difference of 1e-15 into one that is heard, so a stream must meet the same spectra
    grid = MelFrames()
    log_mel_TM = np.random.default_rng(0).normal(-3.0, 1.5, (40, 80))
    together = grid.amplitudes(log_mel_TM)
    # every bin is a mean of the bands that reach it
    assert together == pytest.approx(np.maximum(np.exp(log_mel_TM) - grid.floor, 0.0) @ grid.spread)
    for size in (1, 2, 3, 7, 39):
        parts = [grid.amplitudes(log_mel_TM[start : start + size]) for start in range(0, 40, size)]
        assert np.array_equal(np.concatenate(parts), together)


def test_amplitudes_undo_the_logarithm() -> None:
    grid = MelFrames()
    flat = np.full((2, 80), np.log(0.25 + grid.floor))
    inside = grid.amplitudes(flat)[:, 10:480]
    assert inside == pytest.approx(0.25)
