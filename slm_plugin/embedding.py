"""Start values of the embedding rows of new unit tokens.

Shapes: ``weight_VD`` is ``(vocabulary, width)``; the last ``n_new`` rows are new.
"""

from __future__ import annotations

import torch

COVARIANCE_SCALE = 1e-9
"""Shrinks the covariance so that the new rows change the old tokens' probabilities by almost nothing.

Source: J. Hewitt, "Initializing New Word Embeddings for Pretrained Language Models", 2021; the factor
is the one transformers uses.
"""

MAX_SAMPLED_ROWS = 4096


@torch.no_grad()
def start_from_covariance(weight_VD: torch.Tensor, n_new: int, generator: torch.Generator) -> None:
    """Draw the last ``n_new`` rows from a normal with the mean and 1e-9 times the covariance of the others.

    With ``X`` the centred sample of ``m`` old rows and ``Z`` a standard normal ``(n_new, m)``, the rows
    are ``mean + sqrt(1e-9 / (m - 1)) * Z X``, whose covariance is exactly ``1e-9 * cov(X)``: no matrix is
    factorised, and at most 4,096 old rows are looked at.

    Args:
        weight_VD: Embedding matrix, changed in place.
        n_new: How many rows at the end are new.
        generator: Source of all randomness, on the CPU.
    """
    old_VD = weight_VD[:-n_new]
    n_sampled = min(MAX_SAMPLED_ROWS, len(old_VD))
    chosen = torch.randperm(len(old_VD), generator=generator)[:n_sampled].to(weight_VD.device)
    sample_MD = old_VD[chosen].float()
    mean_D = sample_MD.mean(dim=0)
    noise_NM = torch.randn(n_new, n_sampled, generator=generator).to(weight_VD.device)
    spread = (COVARIANCE_SCALE / max(1, n_sampled - 1)) ** 0.5
    weight_VD[-n_new:] = (mean_D + spread * noise_NM @ (sample_MD - mean_D)).to(weight_VD.dtype)
