"""The nouns of the project, as frozen records that every layer shares.

Shapes: ``N`` samples of a wave, ``T`` units.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class WordSpan:
    """Where a word is spoken.

    Attributes:
        word: The word as written.
        start_s: Start in seconds from the beginning of the utterance.
        end_s: End in seconds, not before ``start_s``.
    """

    word: str
    start_s: float
    end_s: float


@dataclass(frozen=True, eq=False)
class Utterance:
    """A recording and, where known, what is said in it.

    Attributes:
        wave_N: Mono samples, float32 in [-1, 1].
        sample_rate_hz: Samples per second.
        text: What is said; empty where unknown.
        words: Spans of the words, in order; empty where unknown.
    """

    wave_N: np.ndarray
    sample_rate_hz: int
    text: str = ""
    words: tuple[WordSpan, ...] = ()


@dataclass(frozen=True)
class Units:
    """Discrete speech units of one utterance.

    Attributes:
        values: T unit numbers, each in ``[0, n_units)``.
        durations: T frame counts where runs of equal units were folded into one; None where each
            unit stands for exactly one frame.
    """

    values: tuple[int, ...]
    durations: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Sample:
    """One training conversation: the loss is on ``assistant`` only.

    Attributes:
        user: What the user turn says, unit tokens included as text.
        assistant: What the model must answer.
        system: System turn; empty for none.
    """

    user: str
    assistant: str
    system: str = ""


@dataclass(frozen=True)
class RatioSchedule:
    """How a replay ratio changes over a training: a factor on it, by progress t from 0 to 1.

    Attributes:
        shape: ``linear`` and ``cosine`` go from ``start`` to ``end``, ``step`` switches at ``at``.
        start: Factor at t = 0.
        end: Factor at t = 1.
        at: Progress at which ``step`` switches; the others have no use for it.
    """

    shape: Literal["linear", "cosine", "step"]
    start: float
    end: float
    at: float = 0.5


@dataclass(frozen=True)
class PoolDraw:
    """A wish to mix rows of an earlier task into the current stage.

    Attributes:
        dataset: Name of the source in ``dataset_info.json``.
        ratio: Rows drawn per row of the current stage; ``rows = floor(ratio * len(current))``.
        resample: ``once`` draws before training; ``epoch`` draws afresh at the start of each epoch.
        schedule: Factor on the ratio over the training; None for a constant ratio.
        pick: ``uniform`` draws rows by seeded shuffles, ``surprise`` by their loss under the current model.
        candidates: Rows looked at per row drawn by ``surprise``.
        temperature: Nats of loss by which a row becomes e times as likely to be drawn by ``surprise``.
    """

    dataset: str
    ratio: float
    resample: Literal["once", "epoch"] = "once"
    schedule: RatioSchedule | None = None
    pick: Literal["uniform", "surprise"] = "uniform"
    candidates: int = 4
    temperature: float = 1.0


@dataclass(frozen=True)
class StageRun:
    """What a stage hook may know about the run it is called in.

    Attributes:
        stage: Name of the stage, such as ``asr``.
        seed: The host's training seed.
        output_dir: Where the host writes the adapter or model.
        process_index: Rank of this process; 0 writes files.
        n_processes: How many processes train together.
        unit_count: Units in the vocabulary; 0 where the stage has none.
        facts: Further entries for ``slm.json`` (replay counts, for example).
        resume_from: Checkpoint that training continues from; None for a stage from its start.
        saves_checkpoints: Whether the run writes checkpoints that a later run may continue from.
    """

    stage: str
    seed: int
    output_dir: Path
    process_index: int = 0
    n_processes: int = 1
    unit_count: int = 0
    facts: Mapping[str, Any] = field(default_factory=dict)
    resume_from: Path | None = None
    saves_checkpoints: bool = False


@dataclass(frozen=True)
class Score:
    """One number of an evaluation.

    Attributes:
        skill: What was tested, such as ``text_qa``.
        value: The score.
        n: How many items it is a mean over (words for an error rate).
        better: Which direction is an improvement.
        standard_error: Standard error of ``value``; None where it has no meaning.
        examples: A few ``{"prompt", "expected", "answer"}`` mappings for people to read.
        notes: Further numbers to read the score by, such as the error rate of the recogniser that scored it.
        items: ``(numerator, denominator)`` of every item, in the order of the data: ``(1, 1)`` for a right answer,
            ``(errors, words)`` for an utterance. ``value`` is the sum of the ones over that of the others.
            Empty where the score is no such ratio; two models are compared item by item with them.
    """

    skill: str
    value: float
    n: int
    better: Literal["higher", "lower"]
    standard_error: float | None = None
    examples: Sequence[Mapping[str, Any]] = ()
    notes: Mapping[str, float] = field(default_factory=dict)
    items: Sequence[tuple[float, float]] = ()
