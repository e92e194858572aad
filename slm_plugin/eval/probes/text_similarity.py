"""Probe ``text_similarity``: how close free answers, such as translations, are to given ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from pydantic import Field

from slm_plugin.data.rows import text
from slm_plugin.errors import PipelineError
from slm_plugin.eval.protocol import Generator
from slm_plugin.eval.rows import DataOptions, right_answers
from slm_plugin.hookspecs import hookimpl
from slm_plugin.records import Score

RESAMPLES = 1000
NORMAL_QUANTILE = 1.96
"""95 % of a normal distribution lie within as many standard deviations."""


class TextSimilarity:
    """BLEU or chrF of all answers together, 0 to 100, by sacrebleu.

    Source: BLEU, Papineni et al., ACL 2002; chrF, Popović, WMT 2015; sacrebleu, arXiv 1804.08771.
    """

    class Options(DataOptions):
        """Options of ``text_similarity``."""

        prompt: str = "input"
        """Column with the user turn."""

        answer: str = "output"
        """Column with a good answer, or with several: a list, or a mapping with ``value`` and ``aliases``."""

        metric: Literal["bleu", "chrf"] = "chrf"
        """``bleu`` counts runs of up to four words, ``chrf`` of up to six characters, fairer to short answers."""

        max_new_tokens: int = Field(default=256, ge=1)
        """Longest answer."""

    better: Literal["higher", "lower"] = "higher"
    needs_units = False

    def __init__(self, options: Options) -> None:
        self.options = options

    def score(self, skill: str, generator: Generator) -> Score:
        """Return the metric; its standard error is that of sacrebleu's 1000 resamples of the rows.

        Raises:
            PipelineError: sacrebleu is not installed.
        """
        try:
            from sacrebleu.metrics.bleu import BLEU
            from sacrebleu.metrics.chrf import CHRF
        except ImportError:
            raise PipelineError("the probe text_similarity needs sacrebleu; pip install 'slm-plugin[eval]'.") from None
        rows = self.options.rows()
        prompts = [text(row, self.options.prompt) for row in rows]
        expected = [right_answers(row, self.options.answer) for row in rows]
        answers = generator.answer(prompts, self.options.max_new_tokens)
        metric: Any = BLEU() if self.options.metric == "bleu" else CHRF()
        # sacrebleu wants the first good answer of every row, then the second; None where a row has fewer
        most = max(map(len, expected))
        columns = [[good[place] if place < len(good) else None for good in expected] for place in range(most)]
        found = metric.corpus_score(answers, columns, n_bootstrap=RESAMPLES if len(rows) > 1 else 1)
        # half the width of the interval that holds 95 % of the resamples
        error = found._ci / NORMAL_QUANTILE if len(rows) > 1 else None
        shown = self.options.shown(zip(prompts, (good[0] for good in expected), answers, strict=True))
        return Score(skill, float(found.score), len(rows), self.better, error, shown)


@hookimpl
def slm_register_probes(register: Callable[[str, type], None]) -> None:
    """Offer ``text_similarity``."""
    register("text_similarity", TextSimilarity)
