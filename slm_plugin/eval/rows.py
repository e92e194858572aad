"""Rows of evaluation data, and the options by which every probe finds them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from pydantic import Field

from slm_plugin.data.rows import column
from slm_plugin.data.tables import is_hub_name, open_table
from slm_plugin.errors import DataError
from slm_plugin.strict import Strict


class DataOptions(Strict):
    """Where a probe's rows are, and how many of them count."""

    data: str
    """Rows: a file (JSON lines, Parquet, CSV), a folder in the form of a data set, or a name on the hub."""

    subset: str | None = None
    """Configuration of a set that has several."""

    split: str | None = None
    """Split of a set; ``test`` where there is one, else ``validation``, ``dev`` or ``train``, unless set."""

    n: int | None = Field(default=None, ge=1)
    """How many rows; all unless set."""

    examples: int = Field(default=3, ge=0)
    """How many answers to keep for people to read."""

    def rows(self) -> list[dict[str, Any]]:
        """Read the rows.

        Raises:
            DataError: They cannot be read, or there are none.
        """
        path = Path(self.data)
        if path.suffix == ".jsonl" or not (path.exists() or is_hub_name(self.data)):
            return read_rows(path, self.n)
        found: list[dict[str, Any]] = open_table(self.data, self.subset, self.split, self.n).to_list()
        if not found:
            raise DataError(f"the evaluation data {self.data} have no rows.")
        return found

    def shown(self, answers: Iterable[tuple[str, str, str]]) -> list[dict[str, str]]:
        """Return the first few answers, each given as prompt, what was expected, and the answer."""
        keys = ("prompt", "expected", "answer")
        return [dict(zip(keys, found, strict=True)) for found in islice(answers, self.examples)]


def read_rows(path: str | Path, limit: int | None = None) -> list[dict[str, Any]]:
    """Read a file of JSON lines.

    Args:
        path: The file.
        limit: How many rows to read at most; None for all.

    Raises:
        DataError: The file is missing or empty, or a line is not a JSON object.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"there is no evaluation file {path}.")
    rows: list[dict[str, Any]] = []
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            if len(rows) == limit:
                break
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except json.JSONDecodeError as error:
                raise DataError(f"{path}, line {number}: not JSON ({error}).") from None
            if not isinstance(row, dict):
                raise DataError(f"{path}, line {number}: must be a JSON object, got {type(row).__name__}.")
            rows.append(row)
    if not rows:
        raise DataError(f"the evaluation file {path} has no rows.")
    return rows


SHORT_ANSWER = "answers|answer"
"""Columns of a short right answer beside a whole text: several, or one."""


def has_text(row: Mapping[str, Any], names: str) -> bool:
    """Tell whether a column of right answers holds a text that is not blank; wrong forms count as texts."""
    value = column(row, names, "")
    if isinstance(value, Mapping):
        value = [value.get("value"), *(value.get("aliases") or [])]
    values = value if isinstance(value, list) else [value]
    return any(one.strip() if isinstance(one, str) else one is not None for one in values)


def answerable(rows: Sequence[Any], samples: Sequence[Any], data: str, needed: str) -> dict[str, float]:
    """Return the note on rows that a probe leaves out: their share; nothing if it leaves out none.

    Args:
        rows: All rows.
        samples: What is made of each; None for a row that is left out.
        data: Where the rows are, for the message.
        needed: What a row needs, for the message.

    Raises:
        DataError: All rows are left out.
    """
    left_out = sum(sample is None for sample in samples)
    if left_out == len(samples):
        raise DataError(f"none of the {len(rows)} rows of {data} can be scored; a row needs {needed}.")
    return {"unusable": left_out / len(samples)} if left_out else {}


def right_answers(row: Mapping[str, Any], names: str) -> list[str]:
    """Return every answer that counts as right.

    The column holds one text, a list of them, or what TriviaQA has: a mapping with ``value`` and ``aliases``.

    Args:
        row: A row.
        names: Names of the column, alternatives separated by ``|``.

    Raises:
        DataError: The column is missing, empty or of another form.
    """
    value = column(row, names)
    if isinstance(value, Mapping):
        value = [value.get("value"), *(value.get("aliases") or [])]
    found = [value] if isinstance(value, str) else list(value) if isinstance(value, list) else []
    if not found or not all(isinstance(answer, str) for answer in found) or not any(map(str.strip, found)):
        raise DataError(f"column {names!r} must be a text, a list of texts, or a mapping with value and aliases.")
    return list(dict.fromkeys(answer for answer in found if answer.strip()))
