"""The words of the world."""

from __future__ import annotations

from itertools import chain


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


NUMBERS = _words("zero one two three four five six seven eight nine ten")
PEOPLE = _words("anna tom peter maria david susan george helen victor nora simon rosa")
VALUES = {
    "colour": _words("red blue green yellow white black purple orange"),
    "animal": _words("dog cat horse rabbit monkey tiger elephant spider"),
    "city": _words("paris london tokyo madrid moscow cairo berlin havana"),
    "food": _words("bread cheese apple soup pizza honey banana rice"),
    "job": _words("doctor teacher farmer pilot singer lawyer baker soldier"),
}
"""What a person may have, by attribute."""

OTHERS = _words(
    "window river mountain happy garden winter summer music table paper silver letter water fire morning"
    " evening house street flower island"
)
"""Words that no fact speaks of."""

QUESTION_WORDS = _words("what is the of plus")
INSTRUCTION_WORDS = _words("repeat reverse last first please following words speak out loud :")
"""Words that are read but never spoken in this world."""

SPOKEN = tuple(sorted({*NUMBERS, *PEOPLE, *VALUES, *chain.from_iterable(VALUES.values()), *OTHERS, *QUESTION_WORDS}))
WRITTEN = tuple(sorted({*SPOKEN, *INSTRUCTION_WORDS}))
ROLES = ("system", "user", "assistant")
"""Words of the chat template."""
