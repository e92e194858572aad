"""The nearest of K centroids.

Shapes: ``T`` frames, ``K`` centroids, ``D`` features.
"""

from __future__ import annotations

import torch

ROWS_AT_ONCE = 4096
"""Frames whose distances are in memory together: 164 MB for 10,000 centroids."""


class Centroids:
    """K points, and the nearest of them to any other.

    ``argmin_k |x - c_k|^2 = argmax_k (x . c_k - |c_k|^2 / 2)``, in float32: half precision overflows and
    loses the order of near ties (73 % of the units were the same in float16, 20 % in bfloat16).

    Args:
        centroids_KD: The points.
    """

    def __init__(self, centroids_KD: torch.Tensor) -> None:
        self.points_KD = centroids_KD.float()
        self._points_DK = self.points_KD.t().contiguous()
        self._half_norms_K = 0.5 * (self.points_KD**2).sum(1)

    @property
    def n_units(self) -> int:
        """How many there are."""
        return len(self.points_KD)

    def to(self, device: torch.device) -> Centroids:
        """Return the same points on a device."""
        return Centroids(self.points_KD.to(device))

    @torch.inference_mode()
    def nearest(self, features_TD: torch.Tensor) -> torch.Tensor:
        """Return the number of the nearest centroid of each row, ``(T,)``."""
        with full_float32(features_TD.device):
            parts = [
                (rows.float() @ self._points_DK - self._half_norms_K).argmax(1)
                for rows in features_TD.split(ROWS_AT_ONCE)
            ]
        return torch.cat(parts) if parts else torch.zeros(0, dtype=torch.long, device=features_TD.device)


class full_float32:  # noqa: N801 - used like a function, as torch's own context managers are
    """Within it, products of float32 are those of float32, whatever the process has set.

    Autocast is off, and so is TF32, which rounds factors to 11 bits on GPUs.
    """

    def __init__(self, device: torch.device) -> None:
        self._autocast = torch.autocast(device.type, enabled=False)
        self._cuda = device.type == "cuda"
        self._precision = "highest"

    def __enter__(self) -> None:
        self._autocast.__enter__()
        if self._cuda:
            self._precision = torch.get_float32_matmul_precision()
            torch.set_float32_matmul_precision("highest")

    def __exit__(self, *raised: object) -> None:
        if self._cuda:
            torch.set_float32_matmul_precision(self._precision)
        self._autocast.__exit__(*raised)
