"""Reading columns of data-set rows: under either name, in either form, checked."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from numbers import Integral, Real
from typing import Any

import numpy as np

from slm_plugin.errors import DataError
from slm_plugin.vocabulary import (
    UNIT_FORM,
    break_spellings,
    check_range,
    malformed_unit,
    neutralise,
    split_units,
    strip_units,
    text_to_units,
    units_to_text,
)

_FORMS = "[3, 7], '3 7', '3, 7', '[3, 7]' or '<|3|><|7|>', in ASCII digits without leading zeros"
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)")
_SHOWN = 40


def column(row: Mapping[str, Any], names: str, default: Any = None) -> Any:
    """Return the first present column of ``names``, alternatives separated by ``|``.

    Raises:
        DataError: None is present and there is no default.
    """
    for name in names.split("|"):
        if row.get(name) is not None:
            return row[name]
    if default is not None:
        return default
    if not any(name in row for name in names.split("|")):
        wanted = " or ".join(repr(name) for name in names.split("|"))
        raise DataError(f"a row needs the column {wanted}; it has: {', '.join(sorted(row))}.")
    return None


def text(row: Mapping[str, Any], names: str, default: str | None = None) -> str:
    """Return a text column; empty if it holds nothing.

    Control tokens that the text spells, such as ``<|17|>`` or ``<|eot_id|>``, are neutralised as the server
    does with a user's text, so that no text of a row becomes a unit or ends a turn.

    Raises:
        DataError: The column is missing or is not text.
    """
    value = column(row, names, default)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise DataError(f"column {names!r} must be text, got {type(value).__name__}.")
    return neutralise(value)


def units(row: Mapping[str, Any], names: str, unit_count: int) -> list[int]:
    """Return a column of units; empty if it holds nothing.

    The units are a list of whole numbers (integral floats and arrays count), the same as text
    (``3 7``, ``3, 7`` or ``[3, 7]``), or unit tokens (``<|3|><|7|>``).

    Raises:
        DataError: The column is missing or is of another form.
        VocabularyError: A unit is outside ``[0, unit_count)``.
    """
    value = column(row, names)
    if value is None:
        return []
    found = _units_of_text(value, names) if isinstance(value, str) else _units_of_list(value, names)
    check_range(found, unit_count)
    return found


def _units_of_text(value: str, names: str) -> list[int]:
    rest = strip_units(value).strip()
    if not rest:
        return text_to_units(value)
    if rest != value.strip():
        raise DataError(f"column {names!r} must hold only unit tokens such as <|17|>, got {value[:_SHOWN]!r}.")
    if rest.startswith("["):
        try:
            return _units_of_list(json.loads(rest), names)
        except ValueError:
            raise _other_form(value, names) from None
    numbers = [part for part in re.split(r"\s*,\s*|\s+", rest) if part]
    if not all(_NUMBER.fullmatch(number) for number in numbers):
        raise _other_form(value, names)
    return [int(number[:20]) for number in numbers]


def _units_of_list(value: Any, names: str) -> list[int]:
    if hasattr(value, "tolist"):
        # an array of any library
        value = value.tolist()
    if not isinstance(value, Sequence) or isinstance(value, bytes | bytearray):
        raise DataError(f"column {names!r} must hold units, got {type(value).__name__}; accepted are {_FORMS}.")
    if all(type(item) is int for item in value):
        return list(value)
    if len(value) == 1 and _is_list(value[0]):
        # one channel, as encoders give a batch of one
        return _units_of_list(value[0], names)
    if any(_is_list(item) for item in value):
        raise DataError(
            f"column {names!r} must hold one unit for each frame, got {len(value)} lists: {str(value)[:_SHOWN]}."
            " Units of several codebooks or channels are not supported."
        )
    found = []
    for item in value:
        unit = _whole(item)
        if unit is None:
            raise _other_form(value, names, item)
        found.append(unit)
    return found


def _is_list(item: Any) -> bool:
    return isinstance(item, list | tuple | np.ndarray)


def _whole(item: Any) -> int | None:
    """Return a whole number that is written as an int, an integral float or a string; None for anything else."""
    if isinstance(item, bool | np.bool_):
        return None
    if isinstance(item, Integral):
        return int(item)
    if isinstance(item, Real):
        value = float(item)
        return int(value) if math.isfinite(value) and value == int(value) else None
    if isinstance(item, str):
        if _NUMBER.fullmatch(item):
            return int(item[:20])
        found = text_to_units(item)
        return found[0] if len(found) == 1 and not strip_units(item) else None
    return None


def _other_form(value: Any, names: str, item: Any = None) -> DataError:
    among = "" if item is None else f" ({item!r} is not one)"
    shown = repr(value) if isinstance(value, str) else str(value)
    return DataError(
        f"column {names!r} must hold whole numbers or unit tokens, got {shown[:_SHOWN]}{among}; accepted are {_FORMS}."
    )


def interleaved(row: Mapping[str, Any], names: str, unit_count: int) -> str:
    """Return words with their units as one text, ``anna<|3|><|7|> sings<|1|>``.

    The column holds that text already, or a list of ``{"word": ..., "units": [...]}``, between which blanks
    are put, or of ``{"text": ..., "units": [...]}``, whose texts are verbatim. Control tokens that the words
    spell are neutralised.

    Raises:
        DataError: The column is missing or is of another form, or a unit is misspelt.
        VocabularyError: A unit is outside ``[0, unit_count)``.
    """
    value = column(row, names)
    if value is None:
        return ""
    if isinstance(value, str):
        wrong = malformed_unit(value)
        if wrong is not None:
            raise DataError(f"column {names!r} has {wrong[:_SHOWN]!r} among its words; it must hold {UNIT_FORM}.")
        check_range(text_to_units(value), unit_count)
        return "".join(neutralise(words) + units_to_text(spoken) for words, spoken in split_units(value))
    if hasattr(value, "tolist"):
        value = value.tolist()
    if not isinstance(value, Sequence) or not all(isinstance(item, Mapping) for item in value):
        raise DataError(f"column {names!r} must be interleaved text or a list of words with units.")
    key, joiner = ("text", "") if any("text" in item for item in value) else ("word", " ")
    return joiner.join(text(item, key) + units_to_text(units(item, "units", unit_count)) for item in value)


def cut_points(interleaf: str, heard: Sequence[int], said: str) -> tuple[tuple[int, int], ...]:
    """Return where an utterance can be cut so that its text and its units still belong together.

    Args:
        interleaf: The utterance as words with their units, see :func:`interleaved`.
        heard: Its units.
        said: Its text.

    Returns:
        Number of units and of characters of ``said`` up to the end of each word but the last, in order.
        None if the interleaved form is of another utterance, or does not put units behind each single word.
    """
    segments = split_units(interleaf)
    joined = "".join(words for words, _ in segments)
    if [unit for _, spoken in segments for unit in spoken] != list(heard) or joined.strip() != said.strip():
        return ()
    if any(not spoken or len(words.split()) != 1 for words, spoken in segments if words.strip() or not spoken):
        return ()
    lead = len(said) - len(said.lstrip()) - (len(joined) - len(joined.lstrip()))
    points, n_units, n_characters = [], 0, 0
    for words, spoken in segments[:-1]:
        n_units += len(spoken)
        n_characters += len(words)
        if words.strip():
            points.append((n_units, max(0, n_characters + lead)))
        elif points:
            # silence belongs to the word before it
            points[-1] = (n_units, points[-1][1])
    return tuple(points)


def safe(value: Any, spellings: tuple[str, ...]) -> Any:
    """Break special tokens of a tokenizer that texts of a row spell; units are not among them.

    Args:
        value: A row, or a value in it.
        spellings: From :func:`slm_plugin.vocabulary.special_spellings`.
    """
    if isinstance(value, str):
        return break_spellings(value, spellings)
    if isinstance(value, Mapping):
        return {name: safe(item, spellings) for name, item in value.items()}
    if isinstance(value, list) and value and isinstance(value[0], str | Mapping | list):
        return [safe(item, spellings) for item in value]
    return value


def join(instruction: str, content: str) -> str:
    """Put an instruction before text, with one blank between them if the instruction ends in none."""
    if not instruction or instruction[-1].isspace():
        return instruction + content
    return f"{instruction} {content}"
