"""Rows of the data sets, with the columns of the published ones.

ASR and TTS share their rows: ``instruction``, ``discrete_unit``, ``transcription``, ``interleaf``.
SQA rows have ``input_unit``, ``input_pseudo``, ``output_pseudo``, ``output_7306_interleaf``.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from slm_plugin.speech.interleave import render
from world.facts import Fact
from world.speech import Spoken

INSTRUCTIONS = ("please repeat : ", "repeat the words : ", "repeat : ")
Row = dict[str, Any]


def utterance_rows(spoken: Iterable[Spoken], rng: random.Random) -> Iterator[Row]:
    """Yield rows for listening and speaking."""
    for item in spoken:
        yield {
            "instruction": rng.choice(INSTRUCTIONS),
            "discrete_unit": list(item.units),
            "transcription": item.line.text,
            "interleaf": render(item.segments),
        }


def answer_rows(questions: Sequence[Spoken], answers: Sequence[Spoken]) -> Iterator[Row]:
    """Yield rows for answering: a spoken question each, with its answer written and spoken."""
    for question, answer in zip(questions, answers, strict=True):
        yield {
            "input_unit": list(question.units),
            "input_pseudo": question.line.text,
            "output_pseudo": answer.line.text,
            "output_7306_interleaf": render(answer.segments),
        }


def question_rows(asked: Iterable[Spoken], facts: Sequence[Fact], held_out: bool) -> Iterator[Row]:
    """Yield spoken questions for evaluation: about facts heard in training, or about the others."""
    for item in asked:
        fact = facts[item.line.fact]
        if fact.held_out == held_out:
            yield {"input_unit": list(item.units), "input_pseudo": item.line.text, "output_pseudo": fact.answer}


def template_rows(spoken: Iterable[Spoken]) -> Iterator[Row]:
    """Yield the units of single words, for the recogniser."""
    for item in spoken:
        for segment in item.segments:
            if " " not in segment.text:
                yield {"word": segment.text, "units": list(segment.units)}
