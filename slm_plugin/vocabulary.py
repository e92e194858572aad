"""Unit tokens: their names, their ids in a tokenizer, and the arithmetic between the two.

Unit ``u`` of ``count`` is written ``<|u|>`` and has token id ``first_id + u``. The tokens are added
as *special* tokens, so no text that a tokenizer splits ever becomes one by accident.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from slm_plugin.errors import VocabularyError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

DEFAULT_UNIT_COUNT = 10_000
_UNIT = re.compile(r"<\|(\d+)\|>")


def unit_token(unit: int) -> str:
    """Return the token of a unit, ``<|17|>`` for 17."""
    return f"<|{unit}|>"


def units_to_text(units: Iterable[int]) -> str:
    """Write units as consecutive tokens: ``[3, 1]`` gives ``<|3|><|1|>``."""
    return "".join(f"<|{unit}|>" for unit in units)


def text_to_units(text: str) -> list[int]:
    """Read every unit token of a text, in order; other text is passed over."""
    return [int(number) for number in _UNIT.findall(text)]


def strip_units(text: str) -> str:
    """Remove every unit token of a text and leave the rest as it is."""
    return _UNIT.sub("", text)


def neutralise(text: str) -> str:
    """Make a user's text safe to tokenise: special-token spelling is broken by a zero-width space.

    ``<|17|>`` typed by a person must stay the five characters it is, not become unit 17, and
    ``<|eot_id|>`` must not end the turn. The text looks the same to a reader.
    """
    return text.replace("<|", "<\u200b|")


@dataclass(frozen=True)
class UnitVocabulary:
    """Unit tokens bound to one tokenizer: ``id = first_id + unit`` for ``unit`` in ``[0, count)``.

    Attributes:
        first_id: Token id of unit 0.
        count: Number of units.
    """

    first_id: int
    count: int

    @classmethod
    def find(cls, tokenizer: PreTrainedTokenizerBase) -> UnitVocabulary | None:
        """Recognise the unit tokens of an extended tokenizer; None where it has none.

        Raises:
            VocabularyError: Some unit tokens exist but their ids are not one run in order.
        """
        vocabulary = tokenizer.get_vocab()
        ids = {int(match[1]): i for token, i in vocabulary.items() if (match := _UNIT.fullmatch(token))}
        if not ids:
            return None
        count = max(ids) + 1
        first = ids.get(0)
        if first is None or len(ids) != count or any(ids[unit] != first + unit for unit in range(count)):
            raise VocabularyError(
                f"the tokenizer already holds {len(ids)} tokens of the form <|number|> whose ids are not one"
                " unbroken run from <|0|>; unit arithmetic needs that, so use a tokenizer without them."
            )
        return cls(first, count)

    @classmethod
    def extend(cls, tokenizer: PreTrainedTokenizerBase, count: int) -> UnitVocabulary:
        """Add ``count`` unit tokens to a tokenizer in place, or recognise those it has.

        Raises:
            VocabularyError: It holds another number of units, ``count`` is not positive, or it numbers new tokens
                like old ones.
        """
        found = cls.check(tokenizer, count)
        if found is not None:
            return found
        known = tokenizer.get_vocab()
        tokenizer.add_tokens([unit_token(unit) for unit in range(count)], special_tokens=True)
        bound = cls.find(tokenizer)
        assert bound is not None
        taken = sorted((number, token) for token, number in known.items() if bound.is_unit(number))
        if taken:
            number, token = taken[0]
            raise VocabularyError(
                f"the ids of the tokenizer have gaps, and new tokens get ids in use: {number} would be {token!r} and a"
                " unit. Save it anew with a token for every id up to the last one."
            )
        return bound

    @classmethod
    def check(cls, tokenizer: PreTrainedTokenizerBase, count: int) -> UnitVocabulary | None:
        """Return the units a tokenizer has if they are ``count``, None if it has none.

        Raises:
            VocabularyError: It holds another number of units, or ``count`` is not positive.
        """
        if count < 1:
            raise VocabularyError(f"a unit vocabulary needs at least one unit, got {count}.")
        found = cls.find(tokenizer)
        if found is not None and found.count != count:
            raise VocabularyError(
                f"the tokenizer already holds {found.count} units, the configuration asks for {count}."
                f" Set units.count to {found.count}, or start from a model without units."
            )
        return found

    @property
    def end_id(self) -> int:
        """First id behind the units."""
        return self.first_id + self.count

    def is_unit(self, token_id: int) -> bool:
        """Tell whether a token id is a unit."""
        return self.first_id <= token_id < self.end_id

    def ids(self, units: Iterable[int]) -> list[int]:
        """Return the token ids of units.

        Raises:
            VocabularyError: A unit is outside ``[0, count)``.
        """
        values = list(units)
        check_range(values, self.count)
        return [self.first_id + unit for unit in values]

    def units(self, token_ids: Iterable[int]) -> list[int]:
        """Return the units among token ids, in order; other ids are passed over."""
        return [token_id - self.first_id for token_id in token_ids if self.is_unit(token_id)]


def check_range(units: Sequence[int], count: int) -> None:
    """Refuse units outside ``[0, count)``.

    Raises:
        VocabularyError: Names the first such unit, its position and the range.
    """
    for position, unit in enumerate(units):
        if not 0 <= unit < count:
            raise VocabularyError(f"unit {unit} at position {position} is outside 0..{count - 1}.")
