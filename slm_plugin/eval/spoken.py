"""Scoring answers to spoken questions, which probes take from data of different forms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import Field, model_validator

from slm_plugin.eval.judge import JudgeOptions, load_judge
from slm_plugin.eval.match import Match, matches
from slm_plugin.eval.normalise import Normalisation, normaliser
from slm_plugin.eval.protocol import Generator
from slm_plugin.eval.rates import share, word_error_rate
from slm_plugin.eval.recogniser import ceiling
from slm_plugin.records import Score
from slm_plugin.stages.sqa import SECTION_BREAK
from slm_plugin.vocabulary import strip_units, text_to_units, units_to_text

_SECTIONS = 3


class SpokenOptions(JudgeOptions):
    """How answers to spoken questions are scored."""

    speech: bool = False
    """Score what a recogniser understands of the spoken answer, which it must be given; else the written answer."""

    normalise: Normalisation = "case"
    """What does not count: ``case`` and blanks, ``punctuation`` too, or also how ``english`` spells numbers."""

    max_new_tokens: int = Field(default=128, ge=1)
    """Longest answer: all three sections."""

    @model_validator(mode="after")
    def _judge(self) -> SpokenOptions:
        if self.speech:
            self.check_judge()
        return self


def score_spoken(
    skill: str,
    options: SpokenOptions,
    generator: Generator,
    questions: Sequence[Sequence[int]],
    asked: Sequence[str],
    expected: Sequence[Sequence[str]],
    match: Sequence[Match],
    real: Sequence[Mapping[str, Any]] = (),
) -> Score:
    """Return the share of questions that are answered right; the notes say how well the questions were heard.

    Args:
        skill: Column that the score is reported under.
        options: How to score.
        generator: A model with units.
        questions: Units of each question; a question without any is not asked, and counts as answered wrong.
        asked: What each question says; empty where that is not known.
        expected: Every right answer to each question.
        match: How the answer to each question is compared with the right ones.
        real: Rows with ``units`` and ``text`` of real speech, which give the error rate of the recogniser.
    """
    assert generator.vocabulary is not None, "needs_units"
    same = normaliser(options.normalise)
    usable = [number for number, units in enumerate(questions) if units]
    found = generator.answer([units_to_text(questions[number]) for number in usable], options.max_new_tokens)
    answers = [""] * len(questions)
    for number, answer in zip(usable, found, strict=True):
        answers[number] = answer
    sections = [split_answer(answer) for answer in answers]
    shown = answers
    if options.speech:
        judge = load_judge(options, generator.vocabulary.count)
        given = judge.recognise([text_to_units(parts[2]) for parts in sections])
        shown = [f"{answer} (heard: {words})" for answer, words in zip(answers, given, strict=True)]
    else:
        given = [strip_units(parts[1]) for parts in sections]
    rows = zip(given, expected, match, strict=True)
    rate = share([matches(said, right, how, options.normalise) for said, right, how in rows])
    heard = [(same(asked[number]), same(strip_units(sections[number][0]))) for number in usable]
    heard = [pair for pair in heard if pair[0]]
    notes = {"question_wer": word_error_rate(*zip(*heard, strict=True)).value} if heard else {}
    if options.speech and real:
        notes["recogniser_wer"] = ceiling(judge, real, generator.vocabulary.count, same).value
    if len(usable) < len(questions):
        notes["unusable"] = 1 - len(usable) / len(questions)
    prompts = [said or units_to_text(units) for said, units in zip(asked, questions, strict=True)]
    kept = options.shown(zip(prompts, (right[0] for right in expected), shown, strict=True))
    return Score(skill, rate.value, rate.n, "higher", rate.standard_error, kept, notes, rate.items)


def split_answer(answer: str) -> list[str]:
    """Return transcript, answer and interleaved answer; those that are missing are empty."""
    parts = answer.split(SECTION_BREAK, _SECTIONS - 1)
    return parts + [""] * (_SECTIONS - len(parts))
