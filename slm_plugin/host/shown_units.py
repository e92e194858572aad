"""Units in the text that the host shows: ``chat``, ``api``, and the predictions of ``predict_with_generate``.

Units are special tokens, and LLaMA-Factory leaves special tokens out of text (``skip_special_tokens``, true by
default). With units in force, and without that key in the YAML, only the other special tokens are left out.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from slm_plugin.host import runtime
from slm_plugin.vocabulary import UnitVocabulary

KEY = "skip_special_tokens"
NOT_SCORED = "units_not_scored"
"""Name of the measure that says how many units the text measures beside it leave out."""


def is_stated(given: Mapping[str, Any] | Sequence[str]) -> bool:
    """Tell whether the user's arguments, a mapping or the words of a command line, set ``skip_special_tokens``."""
    if isinstance(given, Mapping):
        return KEY in given
    names = (word.partition("=")[0].lstrip("-").replace("-", "_") for word in given if word.startswith("--"))
    return any(name == KEY for name in names)


def show_units(tokenizer: Any, vocabulary: UnitVocabulary) -> None:
    """Make this tokenizer keep units in text from which special tokens are left out."""
    tokenizer._decode = _keeping_units(tokenizer, vocabulary)


@contextlib.contextmanager
def units_shown(tokenizer: Any, vocabulary: UnitVocabulary) -> Iterator[None]:
    """Keep units inside in text from which special tokens are left out."""
    show_units(tokenizer, vocabulary)
    try:
        yield
    finally:
        del tokenizer._decode


def _keeping_units(tokenizer: Any, vocabulary: UnitVocabulary) -> Callable[..., str]:
    stock = type(tokenizer)._decode.__get__(tokenizer)
    special = {number for number, token in tokenizer.added_tokens_decoder.items() if token.special}
    hidden = (special | set(tokenizer.all_special_ids)) - set(range(vocabulary.first_id, vocabulary.end_id))

    @functools.wraps(stock)
    def _decode(token_ids: Any, skip_special_tokens: bool = False, **kwargs: Any) -> str:
        if skip_special_tokens:
            ids = [token_ids] if isinstance(token_ids, int) else token_ids
            token_ids = [number for number in ids if number not in hidden]
        text: str = stock(token_ids, skip_special_tokens=False, **kwargs)
        return text

    return _decode


class WithUnitsCounted:
    """The host's text measures of predictions, with the number of units that they leave out.

    Args:
        measures: The host's ``compute_metrics``.
        vocabulary: The units.
    """

    def __init__(self, measures: Callable[..., Any], vocabulary: UnitVocabulary) -> None:
        self.measures, self.vocabulary, self.n_units = measures, vocabulary, 0

    def __call__(self, eval_preds: Any, *args: Any, **kwargs: Any) -> Any:
        """Return the host's measures and the units in predictions and labels."""
        for ids in (eval_preds.predictions, eval_preds.label_ids):
            ids = np.asarray(ids.cpu() if hasattr(ids, "cpu") else ids)
            self.n_units += int(((ids >= self.vocabulary.first_id) & (ids < self.vocabulary.end_id)).sum())
        found = self.measures(eval_preds, *args, **kwargs)
        if found is None:
            return None
        n_units, self.n_units = self.n_units, 0
        if n_units:
            runtime.say(
                f"predict_with_generate: {', '.join(found)} compare words only and leave out {n_units} units of"
                " predictions and labels. Score speech with slm eval."
            )
        return {**found, NOT_SCORED: float(n_units)}
