"""Find the sections of an answer while it is generated.

A spoken question is answered as ``heard question, blank line, answer, blank line, interleaved answer``,
where the interleaved part is each word followed by its units; a written one as plain text, or as
interleaved text where speech is wanted. Models may miss sections; every text is parsed to something:

- The interleaved part begins with the line or lines behind the last blank line before the first unit
  (at the end of an answer without units: behind the last blank line).
- The heard question ends at the first blank line, if there is one; what lies between is the answer.

How the text was cut into runs never matters.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from slm_serve.splitter import TextRun, UnitRun

_BLANK = re.compile(r"\n\n+")


@dataclass(frozen=True)
class Heard:
    """The question as the model heard it, complete."""

    text: str


@dataclass(frozen=True)
class Answer:
    """A piece of the written answer."""

    text: str


@dataclass(frozen=True)
class Words:
    """A piece of the words that are spoken."""

    text: str


@dataclass(frozen=True)
class Voice:
    """Units to speak."""

    units: tuple[int, ...]


Piece = Heard | Answer | Words | Voice


class AnswerParser:
    """Turns text and unit runs into the pieces of an answer.

    With speech the pieces are ``Heard?, Answer?, (Words | Voice)*``, without it ``Heard?, Answer*``.

    Args:
        sections: Whether the answer has sections, that is, whether the question was spoken.
        speech: Whether the spoken part is wanted; without, the parser is ``done`` when the answer is.
    """

    def __init__(self, sections: bool, speech: bool) -> None:
        self._speech = speech
        self._state: Literal["heard", "answer", "lead", "flow", "done"] = "heard" if sections else "flow"
        self._held = ""
        self._written_any = False

    @property
    def done(self) -> bool:
        """Whether nothing that may follow matters."""
        return self._state == "done"

    def feed(self, run: TextRun | UnitRun) -> list[Piece]:
        """Take the next run; return the pieces it completes."""
        if self._state == "done":
            return []
        pieces = self._text(run.text) if isinstance(run, TextRun) else self._units(run.units)
        return [piece for piece in pieces if isinstance(piece, Voice) or piece.text]

    def finish(self) -> list[Piece]:
        """Return the pieces that were held back until the end."""
        pieces: list[Piece] = []
        if self._state == "heard" and not self._speech:
            pieces = [Answer(self._held)]
        elif self._state in ("heard", "lead"):
            pieces = self._open()
        self._state, self._held = "done", ""
        return [piece for piece in pieces if isinstance(piece, Voice) or piece.text]

    def _text(self, text: str) -> list[Piece]:
        if self._state == "flow":
            return [Words(text) if self._speech else Answer(text)]
        self._held += text
        pieces: list[Piece] = []
        if self._state == "heard":
            self._held = self._held.lstrip("\n")
            heard, blank, rest = self._held.partition("\n\n")
            if not blank:
                return []
            pieces.append(Heard(heard))
            self._state, self._held = "lead" if self._speech else "answer", rest
        if self._state == "answer":
            pieces.append(self._written())
        return pieces

    def _written(self) -> Piece:
        """Give out the answer up to a blank line; a single line break is held: it may become one."""
        if not self._written_any:
            self._held = self._held.lstrip("\n")
        text, blank, _ = self._held.partition("\n\n")
        if blank:
            self._state = "done"
        else:
            text = text.removesuffix("\n")
            self._held = self._held[len(text) :]
        self._written_any = self._written_any or bool(text)
        return Answer(text)

    def _units(self, units: tuple[int, ...]) -> list[Piece]:
        if self._speech:
            return [*(self._open() if self._state != "flow" else []), Voice(units)]
        if self._state == "answer":
            # the model went on to the interleaved part without a blank line
            self._state = "done"
        elif self._state == "heard":
            # interleaved from the start: there are no sections
            held, self._held, self._state = self._held, "", "flow"
            return [Answer(held)]
        return []

    def _open(self) -> list[Piece]:
        """Begin the interleaved part with the text held so far."""
        rest = self._held.lstrip("\n") if self._state == "lead" else self._held
        parts = _BLANK.split(rest)
        self._state, self._held = "flow", ""
        return [Answer("\n\n".join(parts[:-1])), Words(parts[-1])]
