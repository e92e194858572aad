"""K-means centroids from ``.npy``, safetensors or a pickled scikit-learn model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from slm_plugin.errors import CodecError
from slm_plugin.speech.convert.pickles import TRUST


def read_centroids(path: Path, width: int, trusted: bool) -> torch.Tensor:
    """Return centroids, float32 ``(K, D)``.

    Args:
        path: ``.npy``, ``.safetensors`` with one matrix, or a joblib file of a scikit-learn KMeans.
        width: Width D of the features.
        trusted: Whether the file may run code.

    Raises:
        CodecError: It is missing, damaged, of another width, or no finite numbers.
    """
    if not path.is_file():
        raise CodecError(f"{path} does not exist.")
    try:
        points = _read(path, trusted)
    except (OSError, ValueError, EOFError) as error:
        raise CodecError(f"{path} cannot be read as centroids: {error}.") from None
    if points.ndim != 2 or points.shape[1] != width:
        raise CodecError(f"{path}: centroids must have shape (units, {width}) for this layer, got {points.shape}.")
    if not np.isfinite(points).all():
        raise CodecError(f"{path}: some centroids are no finite numbers; the file is damaged.")
    return torch.from_numpy(np.ascontiguousarray(points, np.float32))


def _read(path: Path, trusted: bool) -> np.ndarray:
    if path.suffix == ".npy":
        return np.asarray(np.load(path, allow_pickle=False))
    if path.suffix == ".safetensors":
        from safetensors import SafetensorError
        from safetensors.numpy import load_file

        try:
            matrices = [array for array in load_file(path).values() if array.ndim == 2]
        except SafetensorError as error:
            raise ValueError(str(error)) from None
        if len(matrices) != 1:
            raise ValueError(f"it holds {len(matrices)} matrices, one is wanted")
        return np.asarray(matrices[0])
    if not trusted:
        raise CodecError(
            f"{path} is neither .npy nor .safetensors; a pickled k-means could run code of whoever made it:"
            f" add {TRUST} if you trust its source."
        )
    import joblib

    model = joblib.load(path)
    if not hasattr(model, "cluster_centers_"):
        raise ValueError(f"a {type(model).__name__} has no cluster_centers_")
    return np.asarray(model.cluster_centers_)
