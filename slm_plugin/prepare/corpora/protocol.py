"""What a form of corpora must answer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Protocol

from slm_plugin.records import WordSpan
from slm_plugin.strict import Strict

Recording = str | bytes | Mapping[str, Any]
"""A path, the bytes of a file, or audio of ``datasets``: ``{"bytes", "path"}``, ``{"array", "sampling_rate"}``."""


@dataclass(frozen=True)
class SpokenItem:
    """A recording and what is said in it.

    Attributes:
        name: Unique in its corpus.
        audio: The recording, not read yet.
        text: What is said.
        speaker: Who speaks; empty where unknown.
        language: ISO 639 code; empty where unknown.
        words: Spans that came with it; usually none.
    """

    name: str
    audio: Recording
    text: str
    speaker: str = ""
    language: str = ""
    words: tuple[WordSpan, ...] = ()


@dataclass(frozen=True)
class ChatItem:
    """A question and its answer, to be spoken.

    Attributes:
        name: Unique in its corpus.
        question: What the user says.
        answer: What the assistant says.
        language: ISO 639 code; empty where unknown.
        short: Short right answers, such as ``Amsterdam`` to a question that is answered in a sentence; they are not
            spoken. Empty if the corpus has none.
    """

    name: str
    question: str
    answer: str
    language: str = ""
    short: tuple[str, ...] = ()


@dataclass(frozen=True)
class Unusable:
    """An item that is known to be of no use before anything is read.

    Attributes:
        name: Unique in its corpus.
        reason: One word for the counts, such as ``no_text``.
        message: What is wrong, as a sentence.
    """

    name: str
    reason: str
    message: str


Item = SpokenItem | ChatItem | Unusable


class Corpus(Protocol):
    """Items in an order that is the same on every machine; made in every process with its parsed options.

    Attributes:
        Options: Its options.
        kind: ``speech`` for recordings, ``chats`` for text that is to be spoken.
        fingerprint: What decides which items there are, for the record.
        licence: Terms of the data, as far as they are known.
    """

    Options: ClassVar[type[Strict]]
    kind: Literal["speech", "chats"]
    fingerprint: str
    licence: str

    def __init__(self, options: Any) -> None: ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Item: ...
