"""Log-mel spectra and cepstra, in float64 so that the nearest centroid is the same on every machine.

Source: Davis and Mermelstein, Comparison of parametric representations for monosyllabic word recognition (1980), for
cepstra; the mel scale is O'Shaughnessy's, Speech Communication (1987).

Shapes: ``N`` samples, ``T`` frames, ``F`` frequency bins, ``M`` mel bands, ``C`` cepstra.
Frame ``t`` is centred on sample ``(t + 1/2) * hop``.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view


@dataclass(frozen=True)
class MelFrames:
    """The analysis grid and filters.

    Attributes:
        sample_rate_hz: Rate of the waves.
        hop: Samples from one frame to the next.
        window: Samples of the Hann window around a frame's centre.
        n_fft: Length of the Fourier transform, at least ``window``.
        n_mels: Number of mel bands, M.
        low_hz: Lower edge of the lowest band.
        high_hz: Upper edge of the highest band.
        floor: Added to every band's amplitude before the logarithm; it stands for room noise and
            keeps digital silence from having a spectrum of its own.
    """

    sample_rate_hz: int = 16_000
    hop: int = 480
    window: int = 640
    n_fft: int = 1024
    n_mels: int = 80
    low_hz: float = 60.0
    high_hz: float = 7600.0
    floor: float = 3e-3

    @cached_property
    def filters(self) -> np.ndarray:
        """Triangular filters, evenly spaced on the mel scale 2595 log10(1 + f/700), ``(M, F)``.

        Rows sum to 1.
        """
        edges_mel = np.linspace(_to_mel(self.low_hz), _to_mel(self.high_hz), self.n_mels + 2)
        edges = 700.0 * (10.0 ** (edges_mel / 2595.0) - 1.0)
        frequencies = np.fft.rfftfreq(self.n_fft, 1.0 / self.sample_rate_hz)
        rising = (frequencies - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
        falling = (edges[2:, None] - frequencies) / (edges[2:] - edges[1:-1])[:, None]
        triangles = np.maximum(0.0, np.minimum(rising, falling))
        # the narrowest bands may fall between two bins: give them their nearest one
        for band in np.flatnonzero(triangles.sum(1) == 0.0):
            triangles[band, np.abs(frequencies - edges[band + 1]).argmin()] = 1.0
        return triangles / triangles.sum(1, keepdims=True)

    @cached_property
    def spread(self) -> np.ndarray:
        """Weights that spread band amplitudes back over the bins: a mean of its own each, ``(M, F)``."""
        weights = self.filters / self.filters.max(1, keepdims=True)
        total = weights.sum(0)
        return weights / np.where(total > 0.0, total, 1.0)

    def n_frames(self, n_samples: int) -> int:
        """Return how many whole hops a wave has."""
        return n_samples // self.hop

    def log_mel(self, wave_N: np.ndarray) -> np.ndarray:
        """Return ``log(mean amplitude + floor)`` of every band, ``(T, M)``."""
        n_frames = self.n_frames(len(wave_N))
        if n_frames == 0:
            return np.zeros((0, self.n_mels))
        before = self.window // 2 - self.hop // 2
        after = (n_frames - 1) * self.hop + self.window - before - len(wave_N)
        padded = np.pad(wave_N.astype(np.float64), (max(0, before), max(0, after)))[max(0, -before) :]
        frames = sliding_window_view(padded, self.window)[:: self.hop][:n_frames]
        # dividing by half the window makes a full-scale sine about 1 in its bin
        spectrum_TF = np.abs(np.fft.rfft(frames * np.hanning(self.window), self.n_fft)) / (self.window / 4)
        return np.log(spectrum_TF @ self.filters.T + self.floor)

    def amplitudes(self, log_mel_TM: np.ndarray) -> np.ndarray:
        """Return the smooth amplitude spectrum of log-mel frames, ``(T, F)``: the way back, up to detail."""
        bands_TM = np.maximum(np.exp(log_mel_TM) - self.floor, 0.0)
        # a matrix product rounds a row by how many stand beside it, and phase search makes much of the last bit;
        # a bin has few bands, so they are added one by one, and a frame is the same in whatever company it comes
        bands, weights = self._bands_of_bins
        amplitudes_TF = np.zeros((len(bands_TM), bands.shape[1]))
        for bands_F, weights_F in zip(bands, weights, strict=True):
            amplitudes_TF += bands_TM[:, bands_F] * weights_F
        return amplitudes_TF

    @cached_property
    def _bands_of_bins(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the bands that reach every bin and their weights, ``(B, F)`` each, the largest first."""
        n_bands = int((self.spread > 0.0).sum(0).max())
        bands = np.argsort(-self.spread, axis=0, kind="stable")[:n_bands]
        return bands, np.take_along_axis(self.spread, bands, axis=0)


def cepstra(log_mel_TM: np.ndarray, n_cepstra: int) -> np.ndarray:
    """Return cepstra and their slopes, ``(T, 2 C)``: what is said, with less of who says it how loud.

    The cosine transform of the bands, ``c_n = sum_m x_m cos(pi n (2 m + 1) / (2 M))``; coefficient 0 (loudness) counts
    half. The slope is half the
    difference of the next and the previous frame, 0 at both ends.
    """
    n_mels = log_mel_TM.shape[1]
    basis = np.cos(np.pi * np.outer(np.arange(n_cepstra), 2 * np.arange(n_mels) + 1) / (2 * n_mels))
    basis[0] *= 0.5
    cepstra_TC = log_mel_TM @ basis.T
    slopes_TC = np.zeros_like(cepstra_TC)
    slopes_TC[1:-1] = (cepstra_TC[2:] - cepstra_TC[:-2]) / 2
    return np.concatenate([cepstra_TC, slopes_TC], axis=1)


def _to_mel(frequency_hz: float) -> float:
    return 2595.0 * float(np.log10(1.0 + frequency_hz / 700.0))
