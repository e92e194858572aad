"""Separate generated token ids into text and units, by id and never by reading text."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING

from tokenizers.decoders import DecodeStream

from slm_plugin.vocabulary import UnitVocabulary

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class TextRun:
    """Text that is complete as far as it goes.

    Attributes:
        text: At least one character.
    """

    text: str


@dataclass(frozen=True)
class UnitRun:
    """Consecutive units.

    Attributes:
        units: At least one unit number.
    """

    units: tuple[int, ...]


class Splitter:
    """Feeds on token ids and gives text and unit runs in the order they were generated.

    One incremental detokeniser runs over the text ids alone, so a character whose bytes are split by a
    run of units still comes out whole, right behind them. Other special tokens are passed over.

    Args:
        tokenizer: A fast tokenizer.
        vocabulary: Its units.

    Attributes:
        special: Ids of special tokens, units among them.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, vocabulary: UnitVocabulary) -> None:
        self._raw = tokenizer.backend_tokenizer
        self._vocabulary = vocabulary
        self.special = _special_ids(tokenizer)
        self._decoder = DecodeStream(skip_special_tokens=True)
        # text ids whose characters are not complete yet
        self._pending: list[int] = []
        self.n_units = 0

    def feed(self, ids: Sequence[int]) -> list[TextRun | UnitRun]:
        """Take further ids; return what they complete, neighbours of one kind joined."""
        return list(_joined(self._runs(ids)))

    def finish(self) -> list[TextRun | UnitRun]:
        """Return what is left: replacement characters where the answer ended inside a character."""
        rest, self._pending = self._pending, []
        text = self._raw.decode(rest, skip_special_tokens=True) if rest else ""
        return [TextRun(text)] if text else []

    def _runs(self, ids: Sequence[int]) -> Iterator[TextRun | UnitRun]:
        for token_id in ids:
            if self._vocabulary.is_unit(token_id):
                self.n_units += 1
                yield UnitRun((token_id - self._vocabulary.first_id,))
            elif token_id not in self.special:
                self._pending.append(token_id)
                text = self._decoder.step(self._raw, token_id)
                if text:
                    self._pending.clear()
                    yield TextRun(text)


def _special_ids(tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    return frozenset(i for i, token in tokenizer.added_tokens_decoder.items() if token.special)


def _joined(runs: Iterable[TextRun | UnitRun]) -> Iterator[TextRun | UnitRun]:
    for kind, neighbours in groupby(runs, type):
        if kind is TextRun:
            yield TextRun("".join(run.text for run in neighbours if isinstance(run, TextRun)))
        else:
            yield UnitRun(tuple(unit for run in neighbours if isinstance(run, UnitRun) for unit in run.units))
