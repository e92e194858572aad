"""The words of the world."""

from __future__ import annotations

NUMBERS = tuple("zero one two three four five six seven eight nine ten".split())
PEOPLE = tuple("anna tom peter maria david susan george helen victor nora simon rosa".split())
VALUES = {
    "colour": tuple("red blue green yellow white black purple orange".split()),
    "animal": tuple("dog cat horse rabbit monkey tiger elephant spider".split()),
    "city": tuple("paris london tokyo madrid moscow cairo berlin havana".split()),
    "food": tuple("bread cheese apple soup pizza honey banana rice".split()),
    "job": tuple("doctor teacher farmer pilot singer lawyer baker soldier".split()),
}
"""What a person may have, by attribute."""

OTHERS = tuple(
    "window river mountain happy garden winter summer music table paper silver letter water fire morning"
    " evening house street flower island".split()
)
"""Words that no fact speaks of."""

QUESTION_WORDS = tuple("what is the of plus".split())
INSTRUCTION_WORDS = tuple("repeat reverse last first please following words speak out loud :".split())
"""Words that are read but never spoken in this world."""

SPOKEN = tuple(
    sorted(
        {*NUMBERS, *PEOPLE, *VALUES, *OTHERS, *QUESTION_WORDS, *(value for values in VALUES.values() for value in values)}
    )
)
WRITTEN = tuple(sorted({*SPOKEN, *INSTRUCTION_WORDS}))
ROLES = ("system", "user", "assistant")
"""Words of the chat template."""
