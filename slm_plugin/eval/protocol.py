"""What a probe (one skill of the stage x skill matrix) must answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

from pydantic import Field

from slm_plugin.generation.protocol import Told
from slm_plugin.records import Score
from slm_plugin.strict import Strict
from slm_plugin.vocabulary import UnitVocabulary

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class Generator(Protocol):
    """A model that answers chats; the only thing a probe knows of it.

    Attributes:
        vocabulary: Unit tokens of its tokenizer; None for a model without units.
    """

    vocabulary: UnitVocabulary | None

    def answer(self, prompts: Sequence[str], max_new_tokens: int) -> list[str]:
        """Answer each user turn greedily; unit tokens are kept in the text as ``<|u|>``."""
        ...


@runtime_checkable
class TellsProbabilities(Protocol):
    """A generator that also says how probable given answers are."""

    def log_probabilities(self, chats: Sequence[tuple[str, str]]) -> list[tuple[list[int], list[float]]]:
        """Return, for each ``(user turn, assistant turn)``, the assistant's token ids and their log-probabilities.

        The end of the turn is not among them. Natural logarithms.
        """
        ...


@runtime_checkable
class WorksOnTokens(Protocol):
    """A generator that is also asked in token ids, without a chat around them."""

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The model's tokenizer."""
        ...

    def continue_ids(self, prompts: Sequence[Sequence[int]], max_new_tokens: int) -> list[list[int]]:
        """Continue prompts greedily, up to the end of the turn, which is left out."""
        ...

    def tell(self, pairs: Sequence[tuple[Sequence[int], Sequence[int]]]) -> list[Told]:
        """Say how probable each given answer is behind its prompt."""
        ...


class Probe(Protocol):
    """Scores one skill.

    Made with ``cls(options)``; ``Options`` is a :class:`slm_plugin.strict.Strict` model.

    Attributes:
        better: Which direction of the score is an improvement.
        needs_units: Whether a model without units cannot be scored (its cell stays null).
    """

    Options: type[Strict]
    better: Literal["higher", "lower"]
    needs_units: bool

    def __init__(self, options: Any) -> None: ...

    def score(self, skill: str, generator: Generator) -> Score:
        """Score a model; ``skill`` is the column name that the score is reported under."""
        ...


class Skill(Strict):
    """One column of the matrix."""

    skill: str
    """Name of the column."""

    probe: str
    """Registered probe that scores it."""

    options: dict[str, Any] = Field(default_factory=dict)
    """The probe's options."""
