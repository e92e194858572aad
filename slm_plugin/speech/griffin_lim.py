"""Amplitude spectra to a wave, block by block, so that streaming and one-shot synthesis are the same.

Griffin-Lim looks for phases by going back and forth between wave and spectrum. Here it does so on a
fixed grid of blocks: a block keeps the phases that earlier blocks settled, sees ``look_ahead``
further frames, iterates, and settles its own. The grid counts frames from the start of the
utterance and never looks at how they arrived, hence every way of cutting the input gives the same
samples.

With ``w`` the window, ``x_t`` the samples under frame t and ``A`` the amplitudes asked for, a round takes the wave of
least squares, ``x = sum_t w * irfft(S_t) / sum_t w^2`` with each frame at its place, its spectra
``C_t = rfft(w * x_t)``, then ``Z = C + momentum * (C - C before)``, and goes on with ``S = A Z / |Z|``.

Source: Griffin and Lim, Signal estimation from modified short-time Fourier transform (1984);
the block-wise form follows Zhu, Beauregard and Wyse, Real-time iterative spectrum inversion with
look-ahead (2006); momentum as in Perraudin, Balazs and Sondergaard, A fast Griffin-Lim algorithm (2013).

All in float32: speech needs no more, and it takes half the time.

Shapes: ``N`` samples, ``T`` frames, ``F`` frequency bins.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view


@dataclass(frozen=True)
class GriffinLim:
    """Settings of the synthesiser.

    Attributes:
        n_fft: Length of the Fourier transform, at least ``window``; ``F = n_fft / 2 + 1``. Longer ones cost
            time and sound the same.
        hop: Samples from one frame to the next.
        window: Samples of the Hann window, a multiple of ``hop``; four hops or more overlap well.
        first_block: Frames of the first block: small, so that sound starts early.
        block: Frames of every later block.
        look_ahead: Frames a block sees beyond its own.
        iterations: Rounds of the search per block.
        momentum: Step of the fast variant; 0 is plain Griffin-Lim.
    """

    n_fft: int = 640
    hop: int = 160
    window: int = 640
    first_block: int = 9
    block: int = 24
    look_ahead: int = 6
    iterations: int = 8
    momentum: float = 0.9

    def synthesise(self, amplitudes_TF: np.ndarray) -> np.ndarray:
        """Return the wave of all frames, ``(T * hop,)`` float32: a stream fed everything at once."""
        stream = GriffinLimStream(self)
        return np.concatenate([stream.push(amplitudes_TF), stream.finish()])


class GriffinLimStream:
    """One utterance being synthesised.

    Frame ``t`` is centred on sample ``(t + 1/2) * hop`` of the output.
    """

    def __init__(self, settings: GriffinLim) -> None:
        self._settings = settings
        self._window = np.hanning(settings.window + 1)[:-1].astype(np.float32)
        self._waiting_TF = np.zeros((0, settings.n_fft // 2 + 1), np.float32)
        # windowed sum of the settled frames and the sum of squared windows; its first sample is
        # the first one of the earliest frame that still overlaps the next
        overlap = settings.window - settings.hop
        self._sum = np.zeros(overlap, np.float32)
        self._weight = np.zeros(overlap, np.float32)
        # the window of frame 0 begins before the output does
        self._n_skip = settings.window // 2 - settings.hop // 2
        self._n_settled = 0
        self._n_returned = 0

    def push(self, amplitudes_TF: np.ndarray) -> np.ndarray:
        """Take further frames and return the samples that are final now, ``(N,)`` float32, possibly none."""
        self._waiting_TF = np.concatenate([self._waiting_TF, np.asarray(amplitudes_TF, np.float32)])
        parts = []
        while len(self._waiting_TF) >= self._next_block() + self._settings.look_ahead:
            parts.append(self._settle(self._next_block(), self._settings.look_ahead))
        return self._take(parts)

    def finish(self) -> np.ndarray:
        """Return the remaining samples, ``(N,)`` float32; the stream is used up afterwards."""
        parts = []
        while len(self._waiting_TF):
            n_own = min(self._next_block(), len(self._waiting_TF))
            n_ahead = min(self._settings.look_ahead, len(self._waiting_TF) - n_own)
            parts.append(self._settle(n_own, n_ahead))
        if self._n_settled:
            parts.append(_divide(self._sum, self._weight))
        return self._take(parts, end=self._n_settled * self._settings.hop)

    def _next_block(self) -> int:
        return self._settings.block if self._n_settled else self._settings.first_block

    def _settle(self, n_own: int, n_ahead: int) -> np.ndarray:
        """Search phases for the next frames, settle ``n_own`` of them, return the samples they complete."""
        settings = self._settings
        amplitudes_TF = self._waiting_TF[: n_own + n_ahead]
        spectra_TF = self._search(amplitudes_TF)
        frames = np.fft.irfft(spectra_TF[:n_own], settings.n_fft)[:, : settings.window] * self._window
        self._waiting_TF = self._waiting_TF[n_own:]
        self._n_settled += n_own
        self._sum = _overlap_add(self._sum, frames, settings.hop)
        self._weight = _overlap_add(self._weight, np.tile(self._window**2, (n_own, 1)), settings.hop)
        n_done = n_own * settings.hop
        done = _divide(self._sum[:n_done], self._weight[:n_done])
        self._sum, self._weight = self._sum[n_done:], self._weight[n_done:]
        return done

    def _search(self, amplitudes_TF: np.ndarray) -> np.ndarray:
        settings = self._settings
        n_frames = len(amplitudes_TF)
        weight = _overlap_add(self._weight, np.tile(self._window**2, (n_frames, 1)), settings.hop)
        # all phases 0 is a pulse in the middle of every frame: a voice of pitch rate / hop
        centre = np.exp(-2j * np.pi * np.arange(settings.n_fft // 2 + 1) * (settings.window // 2) / settings.n_fft)
        spectra_TF = amplitudes_TF * centre.astype(np.complex64)
        previous_TF = spectra_TF
        momentum = np.float32(settings.momentum)
        for _ in range(settings.iterations):
            frames = np.fft.irfft(spectra_TF, settings.n_fft)[:, : settings.window] * self._window
            wave = _divide(_overlap_add(self._sum, frames, settings.hop), weight)
            frames = sliding_window_view(wave, settings.window)[:: settings.hop][:n_frames]
            consistent_TF = np.fft.rfft(frames * self._window, settings.n_fft)
            ahead_TF = consistent_TF + momentum * (consistent_TF - previous_TF)
            previous_TF = consistent_TF
            # numpy's |z| guards against overflow, and a complex number divides slowly: a third of this step's time
            strength_TF = np.sqrt(ahead_TF.real**2 + ahead_TF.imag**2)
            spectra_TF = ahead_TF * (amplitudes_TF / np.maximum(strength_TF, np.float32(1e-12)))
        return spectra_TF

    def _take(self, parts: list[np.ndarray], end: int | None = None) -> np.ndarray:
        """Join samples, cut what lies before the output's start and, at the end, behind its end."""
        wave = np.concatenate(parts) if parts else np.zeros(0, np.float32)
        n_cut = min(self._n_skip, len(wave))
        self._n_skip -= n_cut
        wave = wave[n_cut:]
        if end is not None:
            wave = wave[: end - self._n_returned]
        self._n_returned += len(wave)
        return wave


def _overlap_add(head: np.ndarray, frames: np.ndarray, hop: int) -> np.ndarray:
    """Add frames to a running sum, the first one at its start; return the longer sum."""
    n_frames, window = frames.shape
    total = np.zeros(max(len(head), (n_frames - 1) * hop + window), np.float32)
    total[: len(head)] = head
    # piece k of every frame lands k hops behind the frame's start: all frames at once
    for start in range(0, window, hop):
        total[start : start + n_frames * hop].reshape(n_frames, hop)[...] += frames[:, start : start + hop]
    return total


def _divide(total: np.ndarray, weight: np.ndarray) -> np.ndarray:
    return total / np.maximum(weight, np.float32(1e-3))
