"""Unit tokens: their names, their ids in a tokenizer, and the arithmetic between the two.

Unit ``u`` of ``count`` is written ``<|u|>`` and has token id ``first_id + u``. The tokens are added
as *special* tokens, so no text that a tokenizer splits ever becomes one by accident.
"""

from __future__ import annotations

import functools
import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from slm_plugin.errors import VocabularyError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

DEFAULT_UNIT_COUNT = 10_000
UNIT_SPELLING = r"<\|(?:0|[1-9][0-9]{0,8})\|>"
"""Regular expression of the one spelling of a unit: ASCII digits without a leading zero."""

UNIT_FORM = "unit tokens such as <|17|>, written in ASCII digits without a leading zero"
"""What an error message calls that spelling."""

_TAG = re.compile(r"[<\[\u25c1].*[>\]\u25b7]", re.DOTALL)
_UNIT = re.compile(r"<\|(0|[1-9][0-9]{0,8})\|>")
_UNIT_RUN = re.compile(rf"(?:{UNIT_SPELLING})+")
# an opened number, or a number that is closed and was never opened, in the digits of any script
_UNIT_LIKE = re.compile(r"<\s*\|[\s.,_+-]*\d[\d\s.,_+-]*(?:\|\s*>?)?|(?<![^\s|>])\d+\s*\|\s*>")


def unit_token(unit: int) -> str:
    """Return the token of a unit, ``<|17|>`` for 17."""
    return f"<|{unit}|>"


def units_to_text(units: Iterable[int]) -> str:
    """Write units as consecutive tokens: ``[3, 1]`` gives ``<|3|><|1|>``."""
    return "".join(f"<|{unit}|>" for unit in units)


def text_to_units(text: str) -> list[int]:
    """Read every unit token of a text, in order; other text is skipped."""
    return [int(number) for number in _UNIT.findall(text)]


def strip_units(text: str) -> str:
    """Remove every unit token of a text and leave the rest as it is."""
    return _UNIT.sub("", text)


def split_units(text: str) -> list[tuple[str, list[int]]]:
    """Split a text into segments, each the text before a run of units and the units of that run.

    Example: ``anna<|3|><|7|> sings`` gives ``[("anna", [3, 7]), (" sings", [])]``.
    """
    segments, start = [], 0
    for run in _UNIT_RUN.finditer(text):
        segments.append((text[start : run.start()], text_to_units(run[0])))
        start = run.end()
    if start < len(text):
        segments.append((text[start:], []))
    return segments


def malformed_unit(text: str) -> str | None:
    """Return the first part of a text that looks like a unit but is not one; None if there is none.

    ``<|01|>``, ``<|-3|>``, ``<|1.5|>``, a number in the digits of another script, full-width brackets and
    the half of a token that was cut are tokenised as text, so a model would learn to write them.
    """
    rest = _UNIT.sub("\n", text)
    if "|" not in rest and "\uff5c" not in rest:
        return None
    found = _UNIT_LIKE.search(unicodedata.normalize("NFKC", rest))
    return found[0].strip() if found is not None else None


def neutralise(text: str, spellings: tuple[str, ...] = ()) -> str:
    """Make the text of a user or of a data-set row safe to tokenise.

    Special-token spelling is broken by a zero-width space: ``<|17|>`` written by a person must not
    become unit 17, and ``<|eot_id|>`` must not end the turn. The text looks the same to a reader.

    Args:
        text: The text.
        spellings: Special tokens of the tokenizer in another form, from :func:`special_spellings`.
    """
    text = text.replace("<|", "<\u200b|")
    return break_spellings(text, spellings)


def break_spellings(text: str, spellings: tuple[str, ...]) -> str:
    """Put a zero-width space behind the first character of each of ``spellings`` in a text."""
    if not spellings:
        return text
    pattern = _any_of(spellings)
    # a token may lie inside the rest of another one
    while (broken := pattern.sub(lambda match: f"{match[0][0]}\u200b{match[0][1:]}", text)) != text:
        text = broken
    return text


@functools.lru_cache(maxsize=8)
def _any_of(spellings: tuple[str, ...]) -> re.Pattern[str]:
    return re.compile("|".join(map(re.escape, spellings)))


def special_spellings(tokenizer: PreTrainedTokenizerBase) -> tuple[str, ...]:
    """Return the special tokens that do not start with ``<|``, such as ``</s>``, longest first.

    The others, units among them, are broken by :func:`neutralise` without a list. Tokens that the chat template writes
    around turns count as special, as DeepSeek's ``<\uff5cUser\uff5c>``, which its tokenizer does not call so.
    """
    special = {token.content for token in tokenizer.added_tokens_decoder.values() if token.special}
    special |= set(tokenizer.all_special_tokens) | _turn_tokens(tokenizer)
    return tuple(sorted((text for text in special if len(text) > 1 and neutralise(text) == text), key=_longest_first))


def _turn_tokens(tokenizer: PreTrainedTokenizerBase) -> set[str]:
    """Return the added tokens, not special ones, that a chat template writes around turns; not those of a thought."""
    added = {token.content for token in tokenizer.added_tokens_decoder.values() if not token.special}
    tags = {text for text in added if _TAG.fullmatch(text) and "think" not in text}
    if not tags or not tokenizer.chat_template:
        return set()
    user, assistant = ({"role": role, "content": "one"} for role in ("user", "assistant"))
    try:
        text = str(tokenizer.apply_chat_template([user, assistant, user], tokenize=False, add_generation_prompt=True))
    except Exception:
        # whoever renders a prompt reports what is wrong with the template
        return set()
    return {tag for tag in tags if tag in text}


def _longest_first(text: str) -> tuple[int, str]:
    return -len(text), text


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
