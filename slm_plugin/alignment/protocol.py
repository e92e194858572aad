"""What an aligner must answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import numpy as np

from slm_plugin.records import WordSpan
from slm_plugin.strict import Strict


@dataclass(frozen=True)
class Alignment:
    """The words of a text in time.

    Attributes:
        words: One span per word, in order; NaN times where a word could not be placed.
        score: How sure the aligner is, from 0 to 1; None where it does not know.
    """

    words: tuple[WordSpan, ...]
    score: float | None = None


class Aligner(Protocol):
    """Places words in a recording; made once per process with its parsed options.

    Attributes:
        Options: Its options.
        fingerprint: What decides its answers, for the record.
        licence: Terms of the weights that it uses, as far as they are known; empty for none.
    """

    Options: ClassVar[type[Strict]]
    fingerprint: str
    licence: str

    def __init__(self, options: Any) -> None: ...

    def align(
        self, name: str, wave_N: np.ndarray, sample_rate_hz: int, words: Sequence[str], known: Sequence[WordSpan]
    ) -> Alignment:
        """Place the words of one recording.

        Args:
            name: Name of the recording, such as ``84-121123-0000``.
            wave_N: Mono float32 samples.
            sample_rate_hz: Their rate.
            words: What is said.
            known: Spans that came with the recording, of words as its source writes them; may be empty.

        Raises:
            AlignmentError: It cannot be done; the recording is dropped and reported.
        """
        ...
