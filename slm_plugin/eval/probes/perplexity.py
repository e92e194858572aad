"""Probe ``perplexity``: how surprised the model is by right answers, separately for text and for units."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import numpy as np

from slm_plugin.errors import PipelineError
from slm_plugin.eval.protocol import Generator, TellsProbabilities
from slm_plugin.eval.rows import DataOptions, answerable
from slm_plugin.hookspecs import hookimpl
from slm_plugin.plugins import Registry
from slm_plugin.records import Score


class Perplexity:
    """``exp(-mean log p(token))`` over the assistant tokens of one kind, in nats, the end of the turn left out."""

    class Options(DataOptions):
        """Options of ``perplexity``."""

        data: str
        """Rows with the columns of ``stage``."""

        stage: str = "llm"
        """Registered stage that makes conversations of the rows."""

        modality: Literal["text", "units", "all"] = "all"
        """Which tokens of the answers count."""

    better: Literal["higher", "lower"] = "lower"
    needs_units = False

    def __init__(self, options: Options) -> None:
        self.options = options

    def score(self, skill: str, generator: Generator) -> Score:
        """Return the perplexity; ``n`` counts tokens, and the error is that of a ratio over rows.

        Raises:
            DataError: No row makes a conversation.
            PipelineError: The generator cannot tell probabilities, or no token of the kind is in the rows.
        """
        if not isinstance(generator, TellsProbabilities):
            raise PipelineError(f"the probe perplexity of {skill!r} needs a generator that tells probabilities.")
        vocabulary = generator.vocabulary
        stage = Registry.load().stages.get(self.options.stage)()
        rows = self.options.rows()
        samples = [stage.sample(row, vocabulary.count if vocabulary is not None else 0) for row in rows]
        unusable = answerable(rows, samples, self.options.data, f"the columns of the stage {self.options.stage}")
        told = generator.log_probabilities([(sample.user, sample.assistant) for sample in samples if sample])
        items = []
        for ids, logs in told:
            wanted = [self._counts(vocabulary is not None and vocabulary.is_unit(token)) for token in ids]
            if any(wanted):
                items.append((-float(np.sum(np.asarray(logs)[wanted])), float(sum(wanted))))
        if not items:
            raise PipelineError(f"{self.options.data} has no {self.options.modality} token in its answers.")
        losses, counts = np.array(items).T
        mean = float(losses.sum() / counts.sum())
        value, error = math.exp(mean), None
        if len(items) > 1:
            spread = np.sum((losses - mean * counts) ** 2) * len(items) / (len(items) - 1)
            # by the delta method: the error of exp(x) is exp(x) times that of x
            error = value * math.sqrt(spread) / float(counts.sum())
        return Score(skill, value, int(counts.sum()), self.better, error, notes={"nats_per_token": mean} | unusable)

    def _counts(self, is_unit: bool) -> bool:
        return self.options.modality == "all" or (self.options.modality == "units") == is_unit


@hookimpl
def slm_register_probes(register: Callable[[str, type], None]) -> None:
    """Offer ``perplexity``."""
    register("perplexity", Perplexity)
