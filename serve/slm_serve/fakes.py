"""A fake codec: units are tones. For tests, and for work on clients without a trained codec."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from slm_plugin.records import Units
from slm_plugin.vocabulary import check_range

_HOP = 320


class FakeCodec:
    """Unit ``u`` is 20 ms of a tone with ``1 + u`` periods, so that encoding finds it again.

    Args:
        n_units: Number of units, at most 158 at 320 samples a unit.
    """

    rate_hz = 50.0
    sample_rate_hz = 16_000
    folds_runs = False
    fingerprint = "fake00000000"

    def __init__(self, n_units: int = 50) -> None:
        self.n_units = n_units

    def encode(self, wave_N: np.ndarray) -> Units:
        """Return the strongest tone of every 20 ms of a wave at 16 kHz."""
        n_frames = len(wave_N) // _HOP
        frames_TH = np.asarray(wave_N[: n_frames * _HOP], np.float32).reshape(n_frames, _HOP)
        strength_TU = np.abs(np.fft.rfft(frames_TH, axis=1))[:, 1 : 1 + self.n_units]
        return Units(tuple(int(unit) for unit in strength_TU.argmax(axis=1)))

    def decode(self, units: Sequence[int]) -> np.ndarray:
        """Return the tones of units, ``(N,)`` float32 at 16 kHz, 320 samples a unit."""
        check_range(units, self.n_units)
        turns_H = np.arange(_HOP) / _HOP
        waves_TH = 0.3 * np.sin(2 * np.pi * (1 + np.asarray(units, np.float64).reshape(-1, 1)) * turns_H)
        return waves_TH.reshape(-1).astype(np.float32)

    def stream(self) -> FakeSpeechStream:
        """Return a stream that gives every unit's tone at once."""
        return FakeSpeechStream(self)

    def save(self, folder: Path) -> None:
        """Refuse: a fake is made, not loaded."""
        raise NotImplementedError("the fake codec cannot be saved")


class FakeSpeechStream:
    """Speaks units of a :class:`FakeCodec` as they come.

    Args:
        codec: Makes the tones.
    """

    def __init__(self, codec: FakeCodec) -> None:
        self._codec = codec

    def push(self, units: Sequence[int]) -> np.ndarray:
        """Return the tones of the units, ``(N,)`` float32."""
        return self._codec.decode(units)

    def finish(self) -> np.ndarray:
        """Return nothing, ``(0,)``: every tone was final."""
        return np.zeros(0, np.float32)
