"""Loss-ranked rehearsal: which rows of a source to replay, by how much the current model errs on them."""

from __future__ import annotations

import zlib

import numpy as np


def candidate_rows(n_pool: int, n_rows: int, candidates: int, seed: int, name: str, epoch: int = 0) -> np.ndarray:
    """Choose the rows whose loss is worth knowing, each once.

    Args:
        n_pool: Rows in the source.
        n_rows: Rows to draw in the end.
        candidates: Rows to look at per row drawn.
        seed: The training seed.
        name: Name of the source.
        epoch: Number of the epoch; 0 for a draw before training.

    Returns:
        ``(C,)`` int64 row numbers, ``C = min(n_pool, candidates * rest)``, where ``rest`` is what is left of
        ``n_rows`` after whole passes over the source; empty where whole passes are all there is.
    """
    rest = n_rows % n_pool
    n_candidates = min(n_pool, candidates * rest)
    order = _generator(seed, name, epoch, 0).permutation(n_pool)
    return order[:n_candidates].astype(np.int64)


def choose_rows(
    n_pool: int,
    n_rows: int,
    rows_C: np.ndarray,
    losses_C: np.ndarray,
    temperature: float,
    seed: int,
    name: str,
    epoch: int = 0,
) -> np.ndarray:
    """Draw rows without replacement, with probability proportional to exp(loss / temperature) at each draw.

    The keys ``loss / temperature + g`` with independent Gumbel noise ``g = -log(-log u)`` are sorted and the
    largest taken, which is that draw; temperature 0 takes the largest losses. A source smaller than what is to be
    drawn gives whole passes first. Losses that are not numbers (rows without an answer) come last.

    Source: arXiv 1903.06059 (the Gumbel-top-k trick).

    Args:
        n_pool: Rows in the source.
        n_rows: Rows to draw.
        rows_C: Candidate rows, as :func:`candidate_rows` gives them.
        losses_C: Mean loss per answer token of each candidate, in nats.
        temperature: Softness, in nats.
        seed: The training seed.
        name: Name of the source.
        epoch: Number of the epoch.

    Returns:
        ``(n_rows,)`` int64 row numbers, ascending but for the whole passes in front.
    """
    passes, rest = divmod(n_rows, n_pool)
    noise_C = _generator(seed, name, epoch, 1).gumbel(size=len(rows_C))
    known_C = np.where(np.isfinite(losses_C), losses_C.astype(np.float64), -np.inf)
    # loss / temperature + noise in the same order, and finite for the smallest temperature
    keys_C = known_C + temperature * noise_C
    best = np.argsort(-keys_C, kind="stable")[:rest]
    return np.concatenate([np.tile(np.arange(n_pool), passes), np.sort(rows_C[best])]).astype(np.int64)


def _generator(seed: int, name: str, epoch: int, purpose: int) -> np.random.Generator:
    return np.random.default_rng([seed, zlib.crc32(name.encode()), epoch, purpose, 0x5EED])
