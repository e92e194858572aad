"""What is asked of the engine for one answer, and the events that come of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from slm_serve.answer import Answer, Heard, Words
from slm_serve.backends.protocol import FinishReason, SamplingParams
from slm_serve.interleave.constraint import Constraint
from slm_serve.interleave.form import Malformed


@dataclass(frozen=True)
class Job:
    """What to generate.

    Attributes:
        prompt: Token ids.
        params: How to sample.
        model: Name that the engine knows.
        sections: Whether the question was spoken, so that the answer has sections.
        speech: Whether the answer is to be spoken.
        stops: Stop strings in the visible words.
        voice: One of the codec's voices; None for its default.
        constraint: What the answer may consist of; what breaks it is dropped.
        check_form: Whether a malformed spoken answer is ended.
    """

    prompt: list[int]
    params: SamplingParams
    model: str
    sections: bool
    speech: bool
    stops: Sequence[str] = ()
    voice: str | None = None
    constraint: Constraint | None = None
    check_form: bool = True


@dataclass(frozen=True)
class Sound:
    """A piece of the answer's sound.

    Attributes:
        samples: pcm16 at :data:`slm_serve.voice.RATE_HZ`.
        n_units: Units of the answer that the vocoder has taken for the sound up to here.
    """

    samples: bytes
    n_units: int = 0


@dataclass(frozen=True)
class End:
    """The answer is complete.

    Attributes:
        reason: Why it ended.
        ids: The token ids that the answer consists of.
        n_units: How many of the generated tokens are units.
        n_tokens: How many tokens were generated, dropped ones too.
        malformed: Why it was ended early, where its form was wrong.
    """

    reason: FinishReason
    ids: list[int]
    n_units: int
    n_tokens: int
    malformed: Malformed | None = None


Event = Heard | Answer | Words | Sound | End
