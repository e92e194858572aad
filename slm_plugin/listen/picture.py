"""Two recordings as spectrograms side by side, on one scale."""

from __future__ import annotations

from pathlib import Path

import numpy as np

WINDOW_SECONDS, HOP_SECONDS = 0.025, 0.010
RANGE_DB = 80.0


def spectrogram(wave_N: np.ndarray, rate_hz: int) -> np.ndarray:
    """Return power in dB, ``(frequencies, frames)``, of windows of 25 ms every 10 ms.

    Args:
        wave_N: Mono samples.
        rate_hz: Their rate.
    """
    import scipy.signal

    window = int(WINDOW_SECONDS * rate_hz)
    padded = np.pad(wave_N.astype(np.float64), (0, max(0, window - len(wave_N))))
    transform = scipy.signal.ShortTimeFFT.from_window(
        "hann", rate_hz, window, window - int(HOP_SECONDS * rate_hz), scale_to="magnitude"
    )
    return np.asarray(10.0 * np.log10(transform.spectrogram(padded) + 1e-12))


def draw(path: Path, recordings: dict[str, np.ndarray], rate_hz: int) -> None:
    """Draw recordings side by side into a PNG file; colours mean the same level in all of them.

    Args:
        path: The file; it appears whole or not at all.
        recordings: Mono samples ``(N,)`` by title.
        rate_hz: Their rate.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.0 * len(recordings), 3.6), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    powers = {title: spectrogram(wave_N, rate_hz) for title, wave_N in recordings.items()}
    loudest = max(float(power.max()) for power in powers.values())
    all_axes = figure.subplots(1, len(recordings), squeeze=False, sharey=True)[0]
    for axes, (title, power) in zip(all_axes, powers.items(), strict=True):
        seconds = len(recordings[title]) / rate_hz
        drawn = axes.imshow(
            power,
            origin="lower",
            aspect="auto",
            extent=(0.0, max(seconds, WINDOW_SECONDS), 0.0, rate_hz / 2000.0),
            vmin=loudest - RANGE_DB,
            vmax=loudest,
            cmap="magma",
        )
        axes.set_title(f"{title} ({seconds:.2f} s)")
        axes.set_xlabel("seconds")
    all_axes[0].set_ylabel("kHz")
    figure.colorbar(drawn, ax=list(all_axes), label="dB")
    temporary = path.with_name(f".{path.name}")
    figure.savefig(temporary, format="png", metadata={"Software": None})
    temporary.replace(path)
