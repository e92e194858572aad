"""Mini-batch k-means over a stream of features that can be stopped at any time and taken up again.

What comes out does not depend on where it was stopped: files go through in groups that only their number
decides, and the state is written between groups.

Source: Sculley, Web-scale k-means clustering, WWW 2010; scikit-learn's ``MiniBatchKMeans``.

Shapes: ``T`` frames, ``D`` features, ``K`` units.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import Field

from slm_plugin.errors import AudioError, CodecError
from slm_plugin.speech.audio import decode, prepare
from slm_plugin.strict import Strict

if TYPE_CHECKING:
    from slm_plugin.speech.features.extractor import FeatureExtractor

GROUP = 16
"""Files whose features are calculated together."""


class FitSettings(Strict):
    """How centroids are found."""

    n_units: int = Field(ge=2)
    """Centroids, K."""

    seed: int = Field(default=1126, ge=0)
    """Seed of the order of the files and of the first centroids."""

    epochs: int = Field(default=1, ge=1)
    """How often every recording is heard."""

    batch_frames: int = Field(default=0, ge=0)
    """Frames of an update, at least ``n_units``; 0 for the larger of 10,000 and three times ``n_units``."""

    init: str = Field(default="k-means++", pattern=r"^(k-means\+\+|random)$")
    """First centroids: ``k-means++`` spreads them, ``random`` draws frames (faster with many units)."""

    @property
    def frames(self) -> int:
        """Frames of an update."""
        return max(self.batch_frames or max(10_000, 3 * self.n_units), self.n_units)


@dataclass
class FitState:
    """How far a fit has come.

    Attributes:
        identity: Digest of everything that the result depends on.
        n_groups: Groups of files that are done, over all epochs.
        kmeans: scikit-learn's estimator.
        rest_TD: Frames that did not fill an update yet.
        n_frames: Frames heard.
        counts_K: How often each unit was the nearest in the present epoch.
        broken: Files that could not be read, and why.
    """

    identity: str
    n_groups: int
    kmeans: Any
    rest_TD: np.ndarray
    n_frames: int
    counts_K: np.ndarray
    broken: dict[str, str] = field(default_factory=dict)


def fit_centroids(
    extractor: FeatureExtractor,
    encoder_digest: str,
    recordings: Sequence[Path],
    settings: FitSettings,
    state_file: Path,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> FitState:
    """Return the finished state; ``kmeans.cluster_centers_`` are the centroids.

    Args:
        extractor: Makes features of waves.
        encoder_digest: Digest of the extractor's weights.
        recordings: The files, in an order that is the same at each start.
        settings: How centroids are found.
        state_file: Where the state is kept; continued from where it exists.
        progress: Called with the groups that are done and all groups.

    Raises:
        CodecError: The state is of another fit, or there are fewer frames than units.
    """
    identity = _identity(extractor, encoder_digest, recordings, settings)
    state = _start(state_file, identity, settings)
    n_groups = -(-len(recordings) // GROUP)
    total = n_groups * settings.epochs
    progress(state.n_groups, total)
    while state.n_groups < total:
        epoch, group = divmod(state.n_groups, n_groups)
        if group == 0:
            state.counts_K[:] = 0
        order = np.random.default_rng((settings.seed, epoch)).permutation(len(recordings))
        waves = _waves([recordings[number] for number in order[group * GROUP : (group + 1) * GROUP]], state.broken)
        features = [part.cpu().numpy() for part in extractor.features(waves)]
        state.rest_TD = np.concatenate([state.rest_TD, *features]) if state.rest_TD.size else _joined(features)
        state.n_frames += sum(len(part) for part in features)
        while len(state.rest_TD) >= settings.frames:
            _update(state, state.rest_TD[: settings.frames])
            state.rest_TD = state.rest_TD[settings.frames :].copy()
        state.n_groups += 1
        _write(state_file, state)
        progress(state.n_groups, total)
    _finish(state, settings)
    return state


def _finish(state: FitState, settings: FitSettings) -> None:
    started = hasattr(state.kmeans, "cluster_centers_")
    if not started and len(state.rest_TD) < settings.n_units:
        broken = f" {len(state.broken)} recordings could not be read." if state.broken else ""
        raise CodecError(
            f"{settings.n_units} units need at least as many frames; the recordings have {state.n_frames}.{broken}"
        )
    if len(state.rest_TD):
        _update(state, state.rest_TD)
        state.rest_TD = state.rest_TD[:0]


def _update(state: FitState, frames_TD: np.ndarray) -> None:
    state.kmeans.partial_fit(frames_TD)
    state.counts_K += np.bincount(state.kmeans.labels_, minlength=len(state.counts_K))


def _waves(files: Sequence[Path], broken: dict[str, str]) -> list[np.ndarray]:
    waves = []
    for path in files:
        try:
            samples, rate_hz = decode(path)
            waves.append(prepare(samples, rate_hz, 16_000))
        except AudioError as error:
            broken[str(path)] = str(error)
    return waves


def _joined(features: Sequence[np.ndarray]) -> np.ndarray:
    return np.concatenate(features) if features else np.zeros((0, 0), np.float32)


def _identity(
    extractor: FeatureExtractor, encoder_digest: str, recordings: Sequence[Path], settings: FitSettings
) -> str:
    files = [(str(path), path.stat().st_size) for path in recordings]
    decisive = [extractor.settings.model_dump(), encoder_digest, files, settings.model_dump()]
    return hashlib.sha256(json.dumps(decisive).encode()).hexdigest()


def _start(state_file: Path, identity: str, settings: FitSettings) -> FitState:
    import joblib
    from sklearn.cluster import MiniBatchKMeans

    if state_file.is_file():
        state: FitState = joblib.load(state_file)
        if state.identity != identity:
            raise CodecError(
                f"{state_file} is of a fit with other recordings or settings; finish that one, or remove it."
            )
        return state
    kmeans = MiniBatchKMeans(settings.n_units, init=settings.init, n_init=1, random_state=settings.seed)
    empty = np.zeros((0, 0), np.float32)
    return FitState(identity, 0, kmeans, empty, 0, np.zeros(settings.n_units, np.int64))


def _write(state_file: Path, state: FitState) -> None:
    import joblib

    temporary = state_file.with_suffix(".new")
    joblib.dump(state, temporary)
    temporary.replace(state_file)
