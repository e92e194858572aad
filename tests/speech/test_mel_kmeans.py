"""The tiny codec: encoding, decoding, streaming, fitting."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slm_plugin.errors import CodecError, VocabularyError
from slm_plugin.speech.mel_kmeans import MelKmeansCodec, MelKmeansSettings, load_tiny, nearest
from slm_plugin.speech.mel_kmeans_fit import fit


@pytest.fixture(scope="module")
def tiny() -> MelKmeansCodec:
    return load_tiny()


def chirp(seconds: float, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    time_N = np.arange(int(seconds * 16_000)) / 16_000
    pitch_hz = 200 + 600 * np.abs(np.sin(3 * time_N))
    wave_N = 0.4 * np.sin(2 * np.pi * np.cumsum(pitch_hz) / 16_000) + 0.01 * rng.standard_normal(len(time_N))
    return wave_N.astype(np.float32)


def test_nearest_is_the_centroid_at_the_smallest_distance() -> None:
    # distances from (1, 1): 2, 1, 13; from (3, 3): 18, 13, 1
    centroids = np.array([[0.0, 0.0], [1.0, 2.0], [3.0, 4.0]])
    assert nearest(np.array([[1.0, 1.0], [3.0, 3.0]]), centroids).tolist() == [1, 2]


def test_tiny_is_what_it_was_fitted_to_be(tiny: MelKmeansCodec) -> None:
    assert tiny.n_units == 100
    assert tiny.rate_hz == pytest.approx(33.33, abs=0.01)
    assert tiny.sample_rate_hz == 16_000
    assert tiny.folds_runs
    assert len(tiny.fingerprint) == 12


def test_folded_units_never_repeat_and_their_durations_add_up(tiny: MelKmeansCodec) -> None:
    units = tiny.encode(chirp(2.0))
    assert all(a != b for a, b in zip(units.values, units.values[1:], strict=False))
    assert units.durations is not None
    # two seconds are 66 whole hops of 480 samples
    assert sum(units.durations) == 66
    assert np.repeat(units.values, units.durations).tolist() == tiny.frame_units(chirp(2.0)).tolist()


@pytest.mark.parametrize("n_samples", [0, 1, 400, 479])
def test_less_than_one_frame_gives_no_units(tiny: MelKmeansCodec, n_samples: int) -> None:
    assert tiny.encode(np.ones(n_samples, np.float32)).values == ()


def test_one_frame_gives_one_unit(tiny: MelKmeansCodec) -> None:
    assert len(tiny.encode(chirp(0.03)).values) == 1


def test_no_units_decode_to_no_samples(tiny: MelKmeansCodec) -> None:
    assert tiny.decode([]).shape == (0,)


def test_decoding_lasts_as_long_as_its_units_do_on_average(tiny: MelKmeansCodec) -> None:
    units = [3, 50, 7, 12, 99, 0]
    frames = int(np.floor(sum(tiny.run_length_K[unit] for unit in units) + 0.5))
    wave_N = tiny.decode(units)
    assert wave_N.shape == (frames * 480,)
    assert wave_N.dtype == np.float32
    assert np.isfinite(wave_N).all()


@pytest.mark.parametrize("unit", [-1, 100])
def test_a_unit_outside_the_vocabulary_is_refused_and_named(tiny: MelKmeansCodec, unit: int) -> None:
    with pytest.raises(VocabularyError, match=rf"unit {unit} at position 1 is outside 0\.\.99"):
        tiny.decode([5, unit])


@settings(max_examples=20, deadline=None)
@given(units=st.lists(st.integers(0, 99), max_size=60), cuts=st.lists(st.integers(0, 60), max_size=10))
def test_streaming_equals_the_whole_however_it_is_cut(units: list[int], cuts: list[int]) -> None:
    codec = load_tiny()
    whole = codec.decode(units)
    borders = [0, *sorted(min(cut, len(units)) for cut in cuts), len(units)]
    stream = codec.stream()
    parts = [stream.push(units[a:b]) for a, b in pairwise(borders)]
    pieces = np.concatenate([*parts, stream.finish()])
    assert pieces.shape == whole.shape
    assert np.abs(pieces - whole).max(initial=0.0) <= 1e-5


def test_sound_comes_long_before_the_end(tiny: MelKmeansCodec) -> None:
    units = list(tiny.encode(chirp(2.0)).values)
    stream = tiny.stream()
    heard = [len(stream.push([unit])) for unit in units]
    first = next(position for position, n_samples in enumerate(heard) if n_samples)
    # a first block of 9 and a look-ahead of 6 frames of 10 ms, and the frame behind them: 5 frames of 30 ms
    assert first < 6


def test_a_refused_push_leaves_the_stream_as_it_was(tiny: MelKmeansCodec) -> None:
    stream = tiny.stream()
    parts = [stream.push([1, 2, 3])]
    with pytest.raises(VocabularyError):
        stream.push([4, 1_000])
    parts += [stream.push([4, 5]), stream.finish()]
    assert np.array_equal(np.concatenate(parts), tiny.decode([1, 2, 3, 4, 5]))


def test_unfolded_codecs_give_one_unit_per_frame_and_each_lasts_one_frame(tiny: MelKmeansCodec) -> None:
    settings = tiny.settings.model_copy(update={"folds_runs": False})
    plain = MelKmeansCodec(settings, tiny._tensors)
    units = plain.encode(chirp(1.0))
    assert units.durations is None
    assert len(units.values) == 33
    assert plain.decode(units.values).shape == (33 * 480,)
    assert plain.fingerprint != tiny.fingerprint


def test_distances_are_symmetric_with_nothing_from_a_unit_to_itself(tiny: MelKmeansCodec) -> None:
    distances_KK = tiny.distances()
    assert distances_KK.shape == (100, 100)
    assert np.allclose(distances_KK, distances_KK.T)
    assert np.diagonal(distances_KK).tolist() == [0.0] * 100


def test_fitting_twice_gives_the_same_codec() -> None:
    waves = [chirp(1.0, seed) for seed in range(4)]
    first, second = (fit(waves, 8, MelKmeansSettings(), seed=1) for _ in range(2))
    assert first.fingerprint == second.fingerprint
    assert first.n_units == 8


def test_a_fitted_codec_is_the_same_after_it_was_saved(tmp_path: Path) -> None:
    codec = fit([chirp(2.0)], 8, MelKmeansSettings(), seed=1)
    codec.save(tmp_path / "codec")
    loaded = MelKmeansCodec.load(tmp_path / "codec")
    assert loaded.fingerprint == codec.fingerprint
    assert loaded.encode(chirp(2.0)) == codec.encode(chirp(2.0))
    assert np.array_equal(loaded.decode([1, 2, 3]), codec.decode([1, 2, 3]))


def test_run_lengths_and_frames_are_means_over_the_recordings() -> None:
    silent, loud = np.zeros(480 * 6, np.float32), chirp(0.03 * 6) * 0 + 0.5
    codec = fit([silent, loud.astype(np.float32)], 2, MelKmeansSettings(), seed=0)
    quiet = int(codec.frame_units(silent)[0])
    # six frames of silence in a row: one run of six
    assert codec.run_length_K[quiet] == pytest.approx(6.0)
    assert codec.log_mel_KM[quiet] == pytest.approx(np.log(codec.settings.floor), abs=1e-3)


def test_too_few_frames_for_the_units_are_refused() -> None:
    with pytest.raises(CodecError, match="8 units need at least as many frames, the recordings have 3"):
        fit([chirp(0.09)], 8, MelKmeansSettings(), seed=0)


def test_tensors_of_the_wrong_shape_are_refused(tiny: MelKmeansCodec) -> None:
    tensors = {**tiny._tensors, "mean_D": np.zeros(3)}
    with pytest.raises(CodecError, match=r"mean_D must have shape \(26,\), got \(3,\)"):
        MelKmeansCodec(tiny.settings, tensors)
    del tensors["mean_D"]
    with pytest.raises(CodecError, match="missing: mean_D"):
        MelKmeansCodec(tiny.settings, tensors)
