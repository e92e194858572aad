"""Metrics, statistics and sound beside the values that SciPy, torchaudio, searches and plain formulas gave."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from slm_plugin.alignment.ctc import viterbi
from slm_plugin.eval import metrics
from slm_plugin.eval.metrics import Trajectory
from slm_plugin.eval.rates import word_error_rate
from slm_plugin.eval.recogniser import TemplateRecogniser
from slm_plugin.eval.statistics import compared, resampled
from slm_plugin.speech.features.centroids import Centroids
from slm_plugin.speech.griffin_lim import GriffinLim
from slm_plugin.speech.mel import MelFrames, cepstra
from slm_plugin.speech.mel_kmeans import nearest

METRICS = {
    "average score": metrics.average_score,
    "backward transfer": metrics.backward_transfer,
    "forward transfer": metrics.forward_transfer,
    "forgetting": metrics.forgetting,
}


def grid(rate_hz, **settings):
    return MelFrames(sample_rate_hz=rate_hz, **settings)


@pytest.mark.parametrize("algorithm", METRICS)
def test_a_metric_of_continual_learning_is_the_paper_s(algorithm, golden):
    given, value = golden(algorithm)
    # every stage teaches the skill of its own number, as in the papers
    trajectory = Trajectory(np.array(given.pop("scores")), learned=(0, 1, 2))
    assert METRICS[algorithm](trajectory, **given) == pytest.approx(value, rel=1e-12)


def test_forget_percent_is_the_growth_of_the_mean_error(golden):
    given, value = golden("forget percent")
    assert metrics.forget_percent(**given) == pytest.approx(value, rel=1e-12)


def test_the_word_error_rate_and_its_standard_error_are_those_of_edit_distances(golden):
    given, value = golden("word error rate")
    found = word_error_rate(**given)
    assert [found.value, found.standard_error] == pytest.approx(value, rel=1e-12)


def test_the_bootstrap_is_the_spread_of_ratios_of_drawn_items(golden):
    given, value = golden("bootstrap interval")
    found = resampled(given["items"], np.random.default_rng(given["seed"]), given["resamples"])
    assert [found.value, found.standard_error, found.low, found.high] == pytest.approx(value, rel=1e-12)


def test_two_models_are_compared_by_the_same_draws(golden):
    given, value = golden("paired bootstrap")
    found = compared(given["first"], given["second"], np.random.default_rng(given["seed"]), given["resamples"])
    assert [found.value, found.standard_error, found.low, found.high] == pytest.approx(value, rel=1e-12)


def test_mel_filters_are_torchaudio_s_divided_by_their_sums(golden):
    given, value = golden("mel filters")
    # torchaudio's are float32, made of differences of frequencies
    np.testing.assert_allclose(grid(window=16, hop=8, **given).filters, value, rtol=1e-4, atol=1e-6)


def test_a_log_mel_spectrum_is_that_of_torch_s_fourier_transform(golden):
    given, value = golden("log-mel spectrum")
    wave = np.array(given.pop("wave"))
    # its filters are torchaudio's in float32
    np.testing.assert_allclose(grid(**given).log_mel(wave), value, rtol=1e-5)


def test_cepstra_are_scipy_s_cosine_transform_with_their_slopes(golden):
    given, value = golden("cepstra")
    np.testing.assert_allclose(cepstra(np.array(given["log_mel"]), given["n_cepstra"]), value, rtol=1e-12, atol=1e-12)


def test_the_unit_of_a_frame_is_its_nearest_centroid(golden):
    given, value = golden("nearest centroid")
    points, centroids = np.array(given["points"]), np.array(given["centroids"])
    assert nearest(points, centroids).tolist() == value
    assert Centroids(torch.tensor(centroids)).nearest(torch.tensor(points)).tolist() == value


def test_griffin_lim_in_one_block_is_repeated_least_squares(golden):
    given, value = golden("Griffin-Lim")
    amplitudes = np.array(given.pop("amplitudes"))
    found = GriffinLim(n_fft=given["window"], **given).synthesise(amplitudes)
    # float32, and every round divides by amplitudes that may be small
    np.testing.assert_allclose(found, value, rtol=1e-4, atol=1e-5)


def test_ctc_alignment_finds_the_best_of_all_paths(golden):
    given, value = golden("CTC alignment")
    found = viterbi(torch.tensor(given["probabilities"]).log(), given["targets"], blank=0)
    np.testing.assert_allclose(found, value, rtol=1e-6)


def test_the_recogniser_hears_the_cheapest_of_all_words_and_cuts(golden):
    given, value = golden("recogniser of units")
    recogniser = TemplateRecogniser(given["templates"], np.array(given["distances"]))
    assert recogniser.recognise([given["units"]]) == [value]
