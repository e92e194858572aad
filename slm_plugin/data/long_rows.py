"""What happens to a tokenised row that is longer than the limit: dropped, or cut where a word of the answer ends.

LLaMA-Factory cuts the *prompt* of such a row at its end if the answer is short. The last units and the
assistant header are then lost, and the model learns words that are not in the audio.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

IGNORED = -100
"""Label of a token without a loss."""


def cut_length(
    ids: Sequence[int],
    labels: Sequence[int],
    limit: int,
    is_unit: Callable[[int], bool],
    starts_word: Callable[[int], bool],
) -> int:
    """Return how many tokens of a row are kept if it is cut inside its last answer that begins below the limit.

    Prompts are kept whole. The cut is at the end of an answer, behind the units of a word, or before a word of
    text, never between a word and its units. The end of the turn is cut off with the rest, so a model does not
    learn to stop early.

    Args:
        ids: Token ids of the whole row.
        labels: As many; :data:`IGNORED` for prompts.
        limit: Longest row, in tokens.
        is_unit: Whether a token id is a unit.
        starts_word: Whether a token id of text begins a word.

    Returns:
        The length; 0 if no answer can be cut, so that the row must be dropped.
    """
    for start, end in reversed(_answers(labels)):
        if start >= limit:
            continue
        if end <= limit:
            return end
        for position in range(limit, start, -1):
            after, before = ids[position], ids[position - 1]
            if not is_unit(after) and (is_unit(before) or starts_word(after)):
                return position
    return 0


def _answers(labels: Sequence[int]) -> list[tuple[int, int]]:
    """Return start and end of each run of tokens that have a loss."""
    has_loss_T = np.concatenate([[0], (np.asarray(labels) != IGNORED).astype(np.int8), [0]])
    edges = np.flatnonzero(np.diff(has_loss_T))
    return [(int(start), int(end)) for start, end in edges.reshape(-1, 2)]
