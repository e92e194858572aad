"""What a synthesiser must answer."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any, ClassVar, Protocol

from slm_plugin.records import Utterance
from slm_plugin.strict import Strict


class Speaker(Protocol):
    """Speaks the texts of one shard, in order."""

    def say(self, text: str, voice: str) -> Utterance:
        """Speak a text.

        Raises:
            EngineError: The synthesiser is away: the run stops, and goes on when it is started again.
            SlmError: This text cannot be spoken: it is dropped and reported.
        """
        ...


class Voice(Protocol):
    """A synthesiser; made once per process with its parsed options.

    Attributes:
        Options: Its options.
        fingerprint: What decides how it sounds, for the record.
        licence: Terms of the synthesiser, as far as they are known.
        questions: Voices that ask; each item has one of them.
        answers: The voice that answers.
    """

    Options: ClassVar[type[Strict]]
    fingerprint: str
    licence: str
    questions: Sequence[str]
    answers: str

    def __init__(self, options: Any) -> None: ...

    def session(self) -> AbstractContextManager[Speaker]:
        """Start a speaker whose sound depends on nothing but the texts it is given, in order."""
        ...


def asking(voices: Sequence[str], name: str) -> str:
    """Return the voice that asks the question of an item, the same on every machine."""
    return voices[zlib.crc32(name.encode()) % len(voices)]
