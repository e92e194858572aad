"""Probe ``text_match``: written questions with written answers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from pydantic import Field

from slm_plugin.data.rows import text
from slm_plugin.eval.protocol import Generator
from slm_plugin.eval.rates import plain, share
from slm_plugin.eval.rows import read_rows
from slm_plugin.hookspecs import hookimpl
from slm_plugin.records import Score
from slm_plugin.strict import Strict


class TextMatch:
    """The share of prompts that are answered as the file says."""

    class Options(Strict):
        """Options of ``text_match``."""

        data: str
        """JSON lines with prompts and answers."""

        n: int | None = Field(default=None, ge=1)
        """How many rows; all unless set."""

        prompt: str = "input"
        """Column with the user turn."""

        answer: str = "output"
        """Column with the right answer."""

        match: Literal["exact", "contains"] = "exact"
        """Whether the model's answer must equal the right one, or contain it; case and blanks do not count."""

        max_new_tokens: int = Field(default=16, ge=1)
        """Longest answer."""

        examples: int = Field(default=3, ge=0)
        """How many answers to keep for people to read."""

    better: Literal["higher", "lower"] = "higher"
    needs_units = False

    def __init__(self, options: Options) -> None:
        self.options = options

    def score(self, skill: str, generator: Generator) -> Score:
        """Return the share of right answers."""
        rows = read_rows(self.options.data, self.options.n)
        prompts = [text(row, self.options.prompt) for row in rows]
        expected = [text(row, self.options.answer) for row in rows]
        answers = generator.answer(prompts, self.options.max_new_tokens)
        rate = share([self._matches(answer, right) for answer, right in zip(answers, expected, strict=True)])
        examples = [
            {"prompt": prompt, "expected": right, "answer": answer}
            for prompt, right, answer in list(zip(prompts, expected, answers, strict=True))[: self.options.examples]
        ]
        return Score(skill, rate.value, rate.n, self.better, rate.standard_error, examples, items=rate.items)

    def _matches(self, answer: str, right: str) -> bool:
        if self.options.match == "contains":
            return f" {plain(right)} " in f" {plain(answer)} "
        return plain(answer) == plain(right)


@hookimpl
def slm_register_probes(register: Callable[[str, type], None]) -> None:
    """Offer ``text_match``."""
    register("text_match", TextMatch)
