"""Reading columns of data-set rows: under either name, in either form, checked."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from slm_plugin.errors import DataError
from slm_plugin.vocabulary import check_range, strip_units, text_to_units, units_to_text


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
    """Return a text column; empty where it holds nothing.

    Raises:
        DataError: The column is missing or is not text.
    """
    value = column(row, names, default)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise DataError(f"column {names!r} must be text, got {type(value).__name__}.")
    return value


def units(row: Mapping[str, Any], names: str, unit_count: int) -> list[int]:
    """Return a column of units given as a list of ints or as unit tokens; empty where it holds nothing.

    Raises:
        DataError: The column is missing or is of another form.
        VocabularyError: A unit is outside ``[0, unit_count)``.
    """
    value = column(row, names)
    if value is None:
        return []
    if isinstance(value, str):
        if strip_units(value).strip():
            raise DataError(f"column {names!r} must hold only unit tokens such as <|17|>, got {value[:40]!r}.")
        found = text_to_units(value)
    elif isinstance(value, Iterable):
        found = list(value)
        if not all(isinstance(unit, int) and not isinstance(unit, bool) for unit in found):
            raise DataError(f"column {names!r} must hold whole numbers or unit tokens, got {str(found)[:40]}.")
    else:
        raise DataError(f"column {names!r} must hold units, got {type(value).__name__}.")
    check_range(found, unit_count)
    return found


def interleaved(row: Mapping[str, Any], names: str, unit_count: int) -> str:
    """Return words with their units as one text, ``anna<|3|><|7|> sings<|1|>``.

    The column holds that text already, or a list of ``{"word": ..., "units": [...]}``, between which blanks
    are put, or of ``{"text": ..., "units": [...]}``, whose texts are verbatim.

    Raises:
        DataError: The column is missing or is of another form.
        VocabularyError: A unit is outside ``[0, unit_count)``.
    """
    value = column(row, names)
    if value is None:
        return ""
    if isinstance(value, str):
        check_range(text_to_units(value), unit_count)
        return value
    if not isinstance(value, Sequence) or not all(isinstance(item, Mapping) for item in value):
        raise DataError(f"column {names!r} must be interleaved text or a list of words with units.")
    key, joiner = ("text", "") if any("text" in item for item in value) else ("word", " ")
    return joiner.join(text(item, key) + units_to_text(units(item, "units", unit_count)) for item in value)


def join(instruction: str, content: str) -> str:
    """Put an instruction before text, with one blank between them where the instruction ends in none."""
    if not instruction or instruction[-1].isspace():
        return instruction + content
    return f"{instruction} {content}"
