"""K-means centroids from the forms they are published in."""

from __future__ import annotations

import warnings
from pathlib import Path

import joblib
import numpy as np
import pytest
import torch
from safetensors.numpy import save_file
from sklearn.cluster import MiniBatchKMeans

from slm_plugin.errors import CodecError
from slm_plugin.speech.convert.centroids import read_centroids

POINTS = np.random.default_rng(0).standard_normal((6, 4)).astype(np.float32)


def test_npy_and_safetensors_give_their_matrix(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", POINTS)
    save_file({"anything": POINTS, "a_vector": POINTS[0]}, tmp_path / "a.safetensors")
    for name in ("a.npy", "a.safetensors"):
        assert torch.equal(read_centroids(tmp_path / name, 4, trusted=False), torch.from_numpy(POINTS))


def test_a_pickled_k_means_of_scikit_learn_is_read_when_trusted(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        # scikit-learn warns of memory leaks on other systems
        warnings.simplefilter("ignore")
        kmeans = MiniBatchKMeans(3, random_state=0, n_init=1).fit(POINTS)
    joblib.dump(kmeans, tmp_path / "km.bin")
    with pytest.raises(CodecError, match=r"km\.bin is neither \.npy nor \.safetensors; .*add --trust-pickle"):
        read_centroids(tmp_path / "km.bin", 4, trusted=False)
    np.testing.assert_array_equal(read_centroids(tmp_path / "km.bin", 4, trusted=True), kmeans.cluster_centers_)


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", POINTS)
    with pytest.raises(CodecError, match=r"must have shape \(units, 1280\) for this layer, got \(6, 4\)"):
        read_centroids(tmp_path / "a.npy", 1280, trusted=False)
    np.save(tmp_path / "nan.npy", np.where(POINTS > 1, np.nan, POINTS))
    with pytest.raises(CodecError, match="some centroids are no finite numbers"):
        read_centroids(tmp_path / "nan.npy", 4, trusted=False)
    (tmp_path / "b.npy").write_bytes(b"?")
    with pytest.raises(CodecError, match="cannot be read as centroids"):
        read_centroids(tmp_path / "b.npy", 4, trusted=False)
    with pytest.raises(CodecError, match="does not exist"):
        read_centroids(tmp_path / "c.npy", 4, trusted=False)
