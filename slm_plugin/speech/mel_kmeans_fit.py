"""Fit a mel/k-means codec on recordings."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from slm_plugin.errors import CodecError
from slm_plugin.speech.mel import cepstra
from slm_plugin.speech.mel_kmeans import MelKmeansCodec, MelKmeansSettings, frames_of, nearest


def fit(
    waves: Iterable[np.ndarray],
    n_units: int,
    settings: MelKmeansSettings,
    seed: int,
    slope_weight: float = 0.5,
) -> MelKmeansCodec:
    """Cluster the frames of recordings into units.

    Args:
        waves: Waves of shape ``(N,)`` at ``settings.sample_rate_hz``.
        n_units: Number of units, K.
        settings: Frames and folding.
        seed: Seed of k-means; the same seed, recordings and library versions give the same codec.
        slope_weight: How much the slopes of the cepstra count beside the cepstra themselves. Less
            keeps a unit steady through a sound, more tells its beginning from its end.

    Raises:
        CodecError: The recordings have fewer frames than there are units.
    """
    from sklearn.cluster import KMeans

    grid = frames_of(settings)
    log_mels = [grid.log_mel(wave_N) for wave_N in waves]
    features_TD = np.concatenate([cepstra(frames, settings.n_cepstra) for frames in log_mels])
    if len(features_TD) < n_units:
        raise CodecError(f"{n_units} units need at least as many frames, the recordings have {len(features_TD)}.")
    mean_D = features_TD.mean(0)
    scale_D = np.maximum(features_TD.std(0), 1e-6)
    scale_D[settings.n_cepstra :] /= slope_weight
    # rounded first, so that the codec is the same before and after it is saved
    mean_D, scale_D = (tensor.astype(np.float32).astype(np.float64) for tensor in (mean_D, scale_D))
    standard_TD = (features_TD - mean_D) / scale_D
    clusters = KMeans(n_units, n_init=2, max_iter=100, random_state=seed).fit(standard_TD)
    centroids_KD = clusters.cluster_centers_.astype(np.float32).astype(np.float64)
    units_T = nearest(standard_TD, centroids_KD)
    ends = np.cumsum([len(frames) for frames in log_mels])
    tensors = {
        "centroids_KD": centroids_KD,
        "mean_D": mean_D,
        "scale_D": scale_D,
        "log_mel_KM": _means(np.concatenate(log_mels), units_T, n_units),
        "run_length_K": _run_lengths(units_T, ends, n_units),
    }
    return MelKmeansCodec(settings, tensors)


def _means(values_TM: np.ndarray, units_T: np.ndarray, n_units: int) -> np.ndarray:
    """Return the mean of the rows of each unit; units without rows take the mean of all."""
    totals_KM = np.zeros((n_units, values_TM.shape[1]))
    np.add.at(totals_KM, units_T, values_TM)
    counts_K = np.bincount(units_T, minlength=n_units)[:, None]
    return np.where(counts_K > 0, totals_KM / np.maximum(counts_K, 1), values_TM.mean(0))


def _run_lengths(units_T: np.ndarray, ends: np.ndarray, n_units: int) -> np.ndarray:
    """Return the mean length of a unit's runs; a run ends with its recording."""
    changes = np.flatnonzero(np.diff(units_T)) + 1
    starts = np.unique(np.concatenate([[0], changes, ends[:-1]]))
    starts = starts[starts < len(units_T)]
    lengths = np.diff(starts, append=len(units_T))
    owners = units_T[starts]
    total_K = np.bincount(owners, weights=lengths, minlength=n_units)
    return np.maximum(1.0, total_K / np.maximum(np.bincount(owners, minlength=n_units), 1))
