"""Start values of the embedding rows of new tokens.

Shapes: ``weight_VD`` is ``(vocabulary, width)``. Its first ``n_known`` rows belong to tokens that the model was
trained on and are the only ones that statistics are taken from. The matrix may be padded: it then has rows behind
the last token of the tokenizer, and new tokens get rows that are already there.
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
def start_from_mean(weight_VD: torch.Tensor, rows: range, n_known: int, generator: torch.Generator) -> None:
    """Set rows to the mean of the known rows plus normal noise of standard deviation ``1 / sqrt(width)``.

    This is LLaMA-Factory's rule, on the rows of the new tokens instead of the rows that a resize added. Mean and
    noise are computed on the CPU, so that every device starts from the same values.

    Args:
        weight_VD: Embedding matrix, changed in place.
        rows: Rows to set.
        n_known: How many first rows the mean is taken from.
        generator: Source of all randomness, on the CPU.
    """
    width = weight_VD.shape[1]
    mean_1D = weight_VD[:n_known].cpu().mean(dim=0, keepdim=True)
    noise_ND = torch.empty((len(rows), width), dtype=weight_VD.dtype).normal_(0, width**-0.5, generator=generator)
    weight_VD[rows.start : rows.stop] = (mean_1D + noise_ND).to(weight_VD.device)


@torch.no_grad()
def start_from_covariance(weight_VD: torch.Tensor, rows: range, n_known: int, generator: torch.Generator) -> None:
    """Draw rows from a normal with the mean and 1e-9 times the covariance of the known rows.

    With ``X`` the centred sample of ``m`` known rows and ``Z`` a standard normal ``(rows, m)``, the new rows
    are ``mean + sqrt(1e-9 / (m - 1)) * Z X``, whose covariance is exactly ``1e-9 * cov(X)``: no matrix is
    factorised, and at most 4,096 known rows are sampled.

    Args:
        weight_VD: Embedding matrix, changed in place.
        rows: Rows to set.
        n_known: How many first rows the statistics are taken from.
        generator: Source of all randomness, on the CPU.
    """
    n_sampled = min(MAX_SAMPLED_ROWS, n_known)
    chosen = torch.randperm(n_known, generator=generator)[:n_sampled].to(weight_VD.device)
    sample_MD = weight_VD[chosen].float()
    mean_D = sample_MD.mean(dim=0)
    noise_NM = torch.randn(len(rows), n_sampled, generator=generator).to(weight_VD.device)
    spread = (COVARIANCE_SCALE / max(1, n_sampled - 1)) ** 0.5
    new_ND = mean_D + spread * noise_NM @ (sample_MD - mean_D)
    weight_VD[rows.start : rows.stop] = new_ND.to(weight_VD.dtype)
