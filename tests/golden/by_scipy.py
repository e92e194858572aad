"""Sound and statistics by SciPy, torchaudio, torch and numpy."""

from __future__ import annotations

import numpy as np
import torch

from golden.entry import Entry


def covariance(rows: list[list[float]], scale: float) -> list[list[float]]:
    """Return ``scale`` times the sample covariance of the rows."""
    return (scale * np.cov(np.array(rows), rowvar=False)).tolist()


def bootstrapped(items: list[list[float]], seed: int, resamples: int) -> list[float]:
    """Return a ratio's value, bootstrap standard error and ends of the 95 % percentile interval."""
    drawn = np.random.default_rng(seed).integers(0, len(items), (resamples, len(items)))
    above, below = np.array(items).T
    found = above[drawn].sum(1) / below[drawn].sum(1)
    return [float(above.sum() / below.sum()), float(found.std(ddof=1)), *np.percentile(found, [2.5, 97.5]).tolist()]


def bootstrapped_difference(
    first: list[list[float]], second: list[list[float]], seed: int, resamples: int
) -> list[float]:
    """Return the same of ``second - first``, both resampled by the same draws."""
    drawn = np.random.default_rng(seed).integers(0, len(first), (resamples, len(first)))
    pairs = np.array([first, second])
    of_draws = pairs[:, drawn].sum(2)
    ratios, (before, after) = of_draws[..., 0] / of_draws[..., 1], pairs[..., 0].sum(1) / pairs[..., 1].sum(1)
    found = ratios[1] - ratios[0]
    return [float(after - before), float(found.std(ddof=1)), *np.percentile(found, [2.5, 97.5]).tolist()]


def word_errors(references: list[str], hypotheses: list[str]) -> list[float]:
    """Return the word error rate, by torchaudio's edit distance, and the standard error of that ratio."""
    from torchaudio.functional import edit_distance

    pairs = [(said.split(), heard.split()) for said, heard in zip(references, hypotheses, strict=True)]
    errors = np.array([edit_distance(*pair) for pair in pairs])
    lengths = np.array([len(said) for said, _ in pairs])
    rate = errors.sum() / lengths.sum()
    # standard error of a mean of m residuals, whose mean is 0, over the mean length
    deviation = (errors - rate * lengths).std(ddof=1) / np.sqrt(len(pairs)) / lengths.mean()
    return [float(rate), float(deviation)]


def mel_filters(rate_hz: int, n_fft: int, n_mels: int, low_hz: float, high_hz: float) -> list[list[float]]:
    """Return torchaudio's triangles on the HTK mel scale, each divided by its sum, ``(M, F)``."""
    from torchaudio.functional import melscale_fbanks

    found = melscale_fbanks(n_fft // 2 + 1, low_hz, high_hz, n_mels, rate_hz, norm=None, mel_scale="htk").T.double()
    return (found / found.sum(1, keepdim=True)).tolist()


def log_mel(
    wave: list[float],
    hop: int,
    window: int,
    floor: float,
    rate_hz: int,
    n_fft: int,
    n_mels: int,
    low_hz: float,
    high_hz: float,
) -> list[list[float]]:
    """Return ``log(amplitudes @ filters + floor)`` by torch's Fourier transform, ``(T, M)``.

    Frame t is centred on ``(t + 1/2) * hop``; a sine of amplitude 1 has amplitude 1 in its bin.
    """
    # torch lays the window into the middle of n_fft samples
    pad = n_fft // 2 - hop // 2
    samples = torch.nn.functional.pad(torch.tensor(wave, dtype=torch.float64), (pad, pad))
    hann = torch.hann_window(window, periodic=False, dtype=torch.float64)
    spectrum = torch.stft(samples, n_fft, hop, window, hann, center=False, return_complex=True).abs().T
    filters = torch.tensor(mel_filters(rate_hz, n_fft, n_mels, low_hz, high_hz), dtype=torch.float64)
    return torch.log(spectrum / (window / 4) @ filters.T + floor).tolist()


def cepstra(log_mel: list[list[float]], n_cepstra: int) -> list[list[float]]:
    """Return SciPy's cosine transform of type II, halved, coefficient 0 again, and numpy's central differences."""
    from scipy.fft import dct

    found = dct(np.array(log_mel), type=2, axis=1)[:, :n_cepstra] / 2
    found[:, 0] /= 2
    slopes = np.gradient(found, axis=0)
    slopes[[0, -1]] = 0
    return np.hstack([found, slopes]).tolist()


def nearest(points: list[list[float]], centroids: list[list[float]]) -> list[int]:
    """Return the number of the nearest centroid of each point."""
    from scipy.spatial.distance import cdist

    return cdist(np.array(points), np.array(centroids)).argmin(1).tolist()


def griffin_lim(amplitudes: list[list[float]], hop: int, window: int, iterations: int, momentum: float) -> list[float]:
    """Return the wave after some rounds, each wave found by numpy's least squares.

    Of all waves it takes the one whose windowed frames are nearest to those of the spectra asked for (Griffin and
    Lim 1984), and goes on from ``t + momentum * (t - t before)`` (Perraudin et al. 2013).

    Args:
        amplitudes: ``(T, window / 2 + 1)``.
        hop: Samples from frame to frame.
        window: Samples of the periodic Hann window, and of the Fourier transform.
        iterations: Rounds.
        momentum: Step ahead.
    """
    wanted = np.array(amplitudes)
    n_frames = len(wanted)
    length = (n_frames - 1) * hop + window
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(window) / window)
    frames_of = np.zeros((n_frames * window, length))
    for frame in range(n_frames):
        frames_of[frame * window : (frame + 1) * window, frame * hop : frame * hop + window] = np.diag(hann)

    def wave(spectra: np.ndarray) -> np.ndarray:
        return np.linalg.lstsq(frames_of, np.fft.irfft(spectra, window).reshape(-1))[0]

    # a pulse in the middle of every frame
    spectra = wanted * np.exp(-1j * np.pi * np.arange(window // 2 + 1))
    before = spectra
    for _ in range(iterations):
        found = np.fft.rfft((frames_of @ wave(spectra)).reshape(n_frames, window))
        ahead, before = found + momentum * (found - before), found
        spectra = wanted * np.exp(1j * np.angle(ahead))
    first = window // 2 - hop // 2
    return wave(spectra)[first : first + n_frames * hop].tolist()


_MEL = {"rate_hz": 16000, "n_fft": 16, "n_mels": 3, "low_hz": 60.0, "high_hz": 7600.0}
_WAVE = [0.0, 0.5, 0.25, -0.5, -0.75, 0.125, 0.5, 0.25, -0.25, -0.5, 0.0, 0.375]
_AMPLITUDES = [[0.5, 1.0, 0.25, 0.125, 0.0625], [0.25, 1.5, 0.5, 0.125, 0.25], [0.125, 0.75, 1.0, 0.25, 0.125]]
_BANDS = [[0.5, -1.0, 0.25, 2.0], [1.0, 0.0, -0.5, 1.5], [0.0, 0.75, 0.5, -1.0]]
_SAID = {
    "references": ["the cat sat on the mat", "a dog", "they sing in the rain"],
    "hypotheses": ["the cat sat the mad", "a dog barks", "they sing in the rain"],
}
_POINTS = {"points": [[0.0, 0.5], [2.0, 1.0], [-1.0, -1.5]], "centroids": [[1.5, 1.5], [-0.5, -1.0], [0.25, 0.25]]}
ENTRIES = (
    Entry(
        "start of new embeddings",
        "Hewitt 2021",
        "numpy cov",
        {"rows": [[1.0, 2.0], [-1.0, -2.0], [3.0, -1.0], [-3.0, 1.0]], "scale": 1e-9},
        covariance,
    ),
    Entry(
        "bootstrap interval",
        "Efron and Tibshirani 1993, chapter 13",
        "numpy integers, percentile",
        {"items": [[1, 4], [0, 3], [2, 5], [1, 2]], "seed": 3, "resamples": 200},
        bootstrapped,
    ),
    Entry(
        "paired bootstrap",
        "Koehn, EMNLP 2004",
        "numpy integers, percentile",
        {
            "first": [[1, 4], [0, 3], [2, 5], [1, 2]],
            "second": [[1, 4], [1, 3], [3, 5], [0, 2]],
            "seed": 3,
            "resamples": 200,
        },
        bootstrapped_difference,
    ),
    Entry(
        "word error rate",
        "eval/rates.py, the standard error of a ratio",
        "torchaudio edit_distance",
        _SAID,
        word_errors,
    ),
    Entry("mel filters", "O'Shaughnessy 1987", "torchaudio melscale_fbanks", _MEL, mel_filters),
    Entry(
        "log-mel spectrum",
        "Davis and Mermelstein 1980",
        "torch stft",
        {"wave": _WAVE, "hop": 4, "window": 8, "floor": 0.003, **_MEL},
        log_mel,
    ),
    Entry("cepstra", "Davis and Mermelstein 1980", "scipy dct", {"log_mel": _BANDS, "n_cepstra": 3}, cepstra),
    Entry("nearest centroid", "arXiv 2106.07447", "scipy cdist", _POINTS, nearest),
    Entry(
        "Griffin-Lim",
        "Griffin and Lim 1984; Perraudin et al. 2013",
        "numpy lstsq",
        {"amplitudes": _AMPLITUDES, "hop": 2, "window": 8, "iterations": 3, "momentum": 0.9},
        griffin_lim,
    ),
)
