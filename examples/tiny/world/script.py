"""What is said aloud, in one fixed order.

espeak-ng remembers a little of what it said before, so the bytes of an utterance depend on all
earlier ones. The list is therefore always spoken from its beginning; the small evaluation parts come
first, so that a short beginning regenerates them.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from world.facts import Fact
from world.words import SPOKEN

SEED = 1126
N_HEARD = 150
N_TEMPLATES = 3
N_UTTERANCES = 5_000
N_RENDITIONS = 8
TEMPLATE_WORDS = 4
MAX_WORDS = 4


@dataclass(frozen=True)
class Line:
    """One utterance to speak.

    Attributes:
        part: Which data it is for: ``heard``, ``asked``, ``template``, ``utterance``, ``question`` or
            ``answer``.
        text: What to say.
        words_per_minute: Speaking rate.
        pitch: Base pitch.
        fact: Number of the fact it belongs to; -1 for none.
    """

    part: str
    text: str
    words_per_minute: int
    pitch: int
    fact: int = -1


def lines(facts: list[Fact]) -> list[Line]:
    """Return the whole script."""
    rng = random.Random(SEED)
    script: list[Line] = []

    def add(part: str, text: str, fact: int = -1) -> None:
        script.append(Line(part, text, rng.randint(185, 225), rng.randint(45, 55), fact))

    for _ in range(N_HEARD):
        add("heard", _random_words(rng))
    for number, fact in enumerate(facts):
        for question in fact.questions:
            add("asked", question, number)
    for _ in range(N_TEMPLATES):
        for text in _every_word_once(rng):
            add("template", text)
    for _ in range(N_UTTERANCES):
        add("utterance", _random_words(rng))
    for number, fact in enumerate(facts):
        if fact.held_out:
            continue
        for question in fact.questions:
            for _ in range(N_RENDITIONS):
                add("question", question, number)
                add("answer", fact.answer, number)
    return script


def _random_words(rng: random.Random) -> str:
    while True:
        text = " ".join(rng.choice(SPOKEN) for _ in range(rng.randint(1, MAX_WORDS)))
        # the synthesiser runs these two together and gives no time for the second
        if "of the" not in text:
            return text


def _every_word_once(rng: random.Random) -> list[str]:
    while True:
        words = list(SPOKEN)
        rng.shuffle(words)
        texts = [" ".join(words[start : start + TEMPLATE_WORDS]) for start in range(0, len(words), TEMPLATE_WORDS)]
        if not any("of the" in text for text in texts):
            return texts
