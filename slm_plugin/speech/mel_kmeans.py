"""A small real codec without a neural network: log-mel frames, k-means units, Griffin-Lim back.

Encoding: a frame's cepstra and slopes are standardised and replaced by the number of the nearest of
K centroids; runs of equal units may be folded into one. Decoding: every unit becomes its mean
log-mel frame for as long as it lasts on average, frames are joined by straight lines, and
Griffin-Lim finds the wave.

The registered codec ``tiny`` is one that was fitted on the speech of ``examples/tiny``.

Shapes: ``N`` samples, ``T`` frames or units, ``K`` units, ``M`` mel bands, ``D`` features.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib.resources import files
from itertools import groupby
from pathlib import Path

import numpy as np
from pydantic import Field

from slm_plugin.errors import CodecError
from slm_plugin.hookspecs import hookimpl
from slm_plugin.records import Units
from slm_plugin.speech.folder import read_folder, write_folder
from slm_plugin.speech.griffin_lim import GriffinLim, GriffinLimStream
from slm_plugin.speech.mel import MelFrames, cepstra
from slm_plugin.speech.protocol import Codec
from slm_plugin.strict import Strict
from slm_plugin.vocabulary import check_range

KIND = "mel_kmeans"
TENSORS = ("centroids_KD", "mean_D", "scale_D", "log_mel_KM", "run_length_K")


class MelKmeansSettings(Strict):
    """How waves become frames and frames become units; all of it decides which units come out."""

    sample_rate_hz: int = Field(default=16_000, ge=8_000)
    """Rate of the waves."""

    hop: int = Field(default=480, ge=80)
    """Samples per frame; 480 at 16 kHz is 33.3 frames a second."""

    window: int = Field(default=640, ge=160)
    """Samples that a frame looks at."""

    n_mels: int = Field(default=80, ge=20)
    """Mel bands."""

    n_cepstra: int = Field(default=13, ge=4)
    """Cepstra of a frame; with their slopes they are the D = 2 x n_cepstra features."""

    floor: float = Field(default=1e-4, gt=0.0)
    """Amplitude added to every band before the logarithm."""

    folds_runs: bool = True
    """Whether runs of equal units are folded into one: shorter sequences, durations are predicted."""

    synthesis_hop: int = Field(default=160, ge=40)
    """Samples between two frames of Griffin-Lim; four of them make its window."""


class MelKmeansCodec:
    """See the module. Made by :meth:`load` or :func:`slm_plugin.speech.mel_kmeans_fit.fit`.

    Args:
        settings: Frames and folding.
        tensors: ``centroids_KD`` standardised features, ``mean_D`` and ``scale_D`` of the
            standardisation, ``log_mel_KM`` mean frame of a unit, ``run_length_K`` mean frames a unit
            lasts.

    Raises:
        CodecError: A tensor is missing or the shapes do not fit together.
    """

    def __init__(self, settings: MelKmeansSettings, tensors: dict[str, np.ndarray]) -> None:
        _check_tensors(settings, tensors)
        self.settings = settings
        self._tensors = {name: np.asarray(tensors[name], np.float32) for name in TENSORS}
        self._centroids_KD = self._tensors["centroids_KD"].astype(np.float64)
        self._mean_D = self._tensors["mean_D"].astype(np.float64)
        self._scale_D = self._tensors["scale_D"].astype(np.float64)
        self.log_mel_KM = self._tensors["log_mel_KM"].astype(np.float64)
        self.run_length_K = np.maximum(1.0, self._tensors["run_length_K"].astype(np.float64))
        self.n_units = len(self._centroids_KD)
        self.rate_hz = settings.sample_rate_hz / settings.hop
        self.sample_rate_hz = settings.sample_rate_hz
        self.folds_runs = settings.folds_runs
        self.fingerprint = self._fingerprint()
        self.frames = frames_of(settings)
        window = 4 * settings.synthesis_hop
        self.synthesiser = GriffinLim(hop=settings.synthesis_hop, window=window, n_fft=window)
        # the way back needs no finer bins than its own window has
        self.synthesis_frames = replace(self.frames, n_fft=window)

    def _fingerprint(self) -> str:
        digest = hashlib.sha256(self.settings.model_dump_json().encode())
        for name in TENSORS:
            digest.update(np.ascontiguousarray(self._tensors[name]).tobytes())
        return digest.hexdigest()[:12]

    def encode(self, wave_N: np.ndarray) -> Units:
        """Return the units of a wave at ``sample_rate_hz``; less than one frame gives none."""
        units_T = self.frame_units(wave_N)
        if not self.folds_runs:
            return Units(tuple(int(unit) for unit in units_T))
        runs = [(int(unit), len(list(run))) for unit, run in groupby(units_T)]
        return Units(tuple(unit for unit, _ in runs), tuple(length for _, length in runs))

    def frame_units(self, wave_N: np.ndarray) -> np.ndarray:
        """Return the unit of every frame, ``(T,)`` int64, unfolded: ``argmin_k |x - c_k|^2``."""
        features_TD = cepstra(self.frames.log_mel(wave_N), self.settings.n_cepstra)
        return nearest((features_TD - self._mean_D) / self._scale_D, self._centroids_KD)

    def distances(self) -> np.ndarray:
        """Return how different any two units sound, ``(K, K)``: distances of their centroids."""
        differences = self._centroids_KD[:, None] - self._centroids_KD[None]
        return np.sqrt((differences**2).sum(-1))

    def decode(self, units: Sequence[int]) -> np.ndarray:
        """Return the wave of units, ``(N,)`` float32 at ``sample_rate_hz``: a stream fed everything at once.

        Raises:
            VocabularyError: A unit is outside ``[0, n_units)``.
        """
        stream = self.stream()
        return np.concatenate([stream.push(units), stream.finish()])

    def stream(self) -> MelKmeansStream:
        """Return a fresh streaming synthesiser."""
        return MelKmeansStream(self)

    def save(self, folder: Path) -> None:
        """Write the codec to a folder that ``load_codec`` reads."""
        write_folder(folder, KIND, self.settings, self._tensors, self.fingerprint)

    @classmethod
    def load(cls, folder: Path) -> MelKmeansCodec:
        """Read a codec folder.

        Raises:
            CodecError: The folder is damaged, or its content is not what its fingerprint says.
        """
        settings, tensors, fingerprint = read_folder(folder, KIND, MelKmeansSettings)
        codec = cls(settings, tensors)
        if codec.fingerprint != fingerprint:
            raise CodecError(
                f"{folder}: the content has fingerprint {codec.fingerprint}, config.json says {fingerprint};"
                " the folder was changed after it was written: fit or copy it again."
            )
        return codec


class MelKmeansStream:
    """Synthesises one utterance while its units arrive; how they are cut into pushes changes nothing."""

    def __init__(self, codec: MelKmeansCodec) -> None:
        self._codec = codec
        self._synthesis = GriffinLimStream(codec.synthesiser)
        # log-mel frames from number `_first_frame` on; the latest one always stays, to draw the line from
        self._frames_TM = np.zeros((0, codec.frames.n_mels))
        self._first_frame = 0
        self._n_fine = 0
        self._length = 0.0
        self._n_frames = 0

    def push(self, units: Sequence[int]) -> np.ndarray:
        """Take further units and return the samples that are final now, ``(N,)`` float32, possibly none.

        Raises:
            VocabularyError: A unit is outside ``[0, n_units)``; nothing of this push was taken.
        """
        values = [int(unit) for unit in units]
        check_range(values, self._codec.n_units)
        if not values:
            return np.zeros(0, np.float32)
        frames_TM = self._codec.log_mel_KM[np.repeat(values, self._durations(values))]
        self._frames_TM = np.concatenate([self._frames_TM, frames_TM])
        # a fine frame is known once the frame behind it has come
        last_centre = self._n_frames - 0.5
        ratio = self._codec.settings.hop / self._codec.settings.synthesis_hop
        return self._synthesise(int(np.floor(last_centre * ratio - 0.5)) + 1)

    def finish(self) -> np.ndarray:
        """Return the remaining samples, ``(N,)`` float32; the stream is used up afterwards."""
        n_samples = self._n_frames * self._codec.settings.hop
        wave = self._synthesise(n_samples // self._codec.settings.synthesis_hop)
        return np.concatenate([wave, self._synthesis.finish()])

    def _durations(self, units: list[int]) -> list[int]:
        """Return how many frames each unit lasts: its mean, rounded so that the sum stays true."""
        durations = []
        for unit in units:
            self._length += self._codec.run_length_K[unit] if self._codec.folds_runs else 1.0
            end = int(np.floor(self._length + 0.5))
            durations.append(end - self._n_frames)
            self._n_frames = end
        return durations

    def _synthesise(self, n_fine_end: int) -> np.ndarray:
        fine = np.arange(self._n_fine, max(self._n_fine, n_fine_end))
        self._n_fine = max(self._n_fine, n_fine_end)
        if not len(fine):
            return np.zeros(0, np.float32)
        settings = self._codec.settings
        position = np.clip((fine + 0.5) * settings.synthesis_hop / settings.hop - 0.5, 0.0, self._n_frames - 1.0)
        below = np.floor(position).astype(int)
        above = np.minimum(below + 1, self._n_frames - 1)
        share = (position - below)[:, None]
        frames_TM = self._frames_TM[below - self._first_frame] * (1.0 - share)
        frames_TM = frames_TM + self._frames_TM[above - self._first_frame] * share
        # the analysis divided by a quarter of its window; this window is the synthesiser's
        amplitudes_TF = self._codec.synthesis_frames.amplitudes(frames_TM) * (self._codec.synthesiser.window / 4)
        n_old = int(below[-1]) - self._first_frame
        self._frames_TM = self._frames_TM[n_old:]
        self._first_frame += n_old
        return self._synthesis.push(amplitudes_TF)


def frames_of(settings: MelKmeansSettings) -> MelFrames:
    """Return the analysis grid that the settings describe."""
    return MelFrames(
        sample_rate_hz=settings.sample_rate_hz,
        hop=settings.hop,
        window=settings.window,
        n_mels=settings.n_mels,
        floor=settings.floor,
        high_hz=0.475 * settings.sample_rate_hz,
    )


def nearest(features_TD: np.ndarray, centroids_KD: np.ndarray) -> np.ndarray:
    """Return the number of the nearest centroid of each row, ``(T,)`` int64: ``argmin_k |c_k|^2 - 2 x.c_k``."""
    return ((centroids_KD**2).sum(1) - 2.0 * features_TD @ centroids_KD.T).argmin(1)


def _check_tensors(settings: MelKmeansSettings, tensors: dict[str, np.ndarray]) -> None:
    missing = [name for name in TENSORS if name not in tensors]
    if missing:
        raise CodecError(f"a {KIND} codec needs the tensors {', '.join(TENSORS)}; missing: {', '.join(missing)}.")
    n_units, width = len(tensors["centroids_KD"]), 2 * settings.n_cepstra
    shapes = ((n_units, width), (width,), (width,), (n_units, settings.n_mels), (n_units,))
    for name, shape in zip(TENSORS, shapes, strict=True):
        if tensors[name].shape != shape:
            raise CodecError(f"a {KIND} codec: {name} must have shape {shape}, got {tensors[name].shape}.")


def load_tiny() -> MelKmeansCodec:
    """Return the codec that was fitted on the speech of ``examples/tiny``."""
    return MelKmeansCodec.load(Path(str(files("slm_plugin.speech") / "tiny_codec")))


@hookimpl
def slm_register_codecs(register: Callable[[str, Callable[[], Codec]], None]) -> None:
    """Announce the codec ``tiny``."""
    register("tiny", load_tiny)
