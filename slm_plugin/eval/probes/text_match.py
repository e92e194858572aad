"""Probe ``text_match``: written questions with written answers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from pydantic import Field

from slm_plugin.data.rows import text
from slm_plugin.eval.match import Match, matches
from slm_plugin.eval.normalise import Normalisation
from slm_plugin.eval.protocol import Generator
from slm_plugin.eval.rates import share
from slm_plugin.eval.rows import DataOptions, right_answers
from slm_plugin.hookspecs import hookimpl
from slm_plugin.records import Score


class TextMatch:
    """The share of prompts that are answered as the data say."""

    class Options(DataOptions):
        """Options of ``text_match``."""

        prompt: str = "input"
        """Column with the user turn."""

        answer: str = "output"
        """Column with the right answer, or with several: a list, or a mapping with ``value`` and ``aliases``."""

        match: Match = "exact"
        """Whether the model's answer must equal a right one, or contain it as whole words; punctuation at the edges of
        words counts in neither case."""

        normalise: Normalisation = "case"
        """What does not count: ``case`` and blanks, ``punctuation`` too, or also how ``english`` spells numbers."""

        max_new_tokens: int = Field(default=16, ge=1)
        """Longest answer."""

    better: Literal["higher", "lower"] = "higher"
    needs_units = False

    def __init__(self, options: Options) -> None:
        self.options = options

    def score(self, skill: str, generator: Generator) -> Score:
        """Return the share of right answers."""
        rows = self.options.rows()
        prompts = [text(row, self.options.prompt) for row in rows]
        expected = [right_answers(row, self.options.answer) for row in rows]
        answers = generator.answer(prompts, self.options.max_new_tokens)
        how = (self.options.match, self.options.normalise)
        rate = share([matches(said, right, *how) for said, right in zip(answers, expected, strict=True)])
        shown = self.options.shown(zip(prompts, (right[0] for right in expected), answers, strict=True))
        return Score(skill, rate.value, rate.n, self.better, rate.standard_error, shown, items=rate.items)


@hookimpl
def slm_register_probes(register: Callable[[str, type], None]) -> None:
    """Offer ``text_match``."""
    register("text_match", TextMatch)
