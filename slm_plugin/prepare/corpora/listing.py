"""What corpora of files share: a list of items, its fingerprint, and tables of columns."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from slm_plugin.data import delimited
from slm_plugin.data.delimited import AUTO
from slm_plugin.errors import DataError, suggest
from slm_plugin.prepare.corpora.protocol import Item, Unusable


class Listing:
    """A corpus whose items fit in memory; recordings are read later, one by one.

    Attributes:
        notes: What was guessed about its files, for the log.
    """

    kind: Literal["speech", "chats"] = "speech"

    def __init__(self, items: Iterable[Item], where: str, notes: Sequence[str] = ()) -> None:
        self._items = _unique(items)
        # the items are read by now, and with them everything was guessed
        self.notes = tuple(dict.fromkeys(notes))
        if not self._items:
            raise DataError(f"{where} has no items.")
        digest = hashlib.sha256()
        for item in self._items:
            # the name of the file and not its folder: a corpus may be mounted elsewhere on another machine
            audio = getattr(item, "audio", None)
            known = {**vars(item), "audio": Path(audio).name if isinstance(audio, str) else None}
            digest.update(json.dumps(known, ensure_ascii=False, sort_keys=True, default=vars).encode())
        self.fingerprint = digest.hexdigest()[:12]

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, index: int) -> Item:
        return self._items[index]


def _unique(items: Iterable[Item]) -> list[Item]:
    """Keep the first item of each name; the others are reported."""
    seen: dict[str, int] = {}
    kept: list[Item] = []
    for item in items:
        seen[item.name] = seen.get(item.name, 0) + 1
        again = Unusable(f"{item.name}#{seen[item.name]}", "duplicate", f"another item is called {item.name!r}.")
        kept.append(item if seen[item.name] == 1 else again)
    return kept


def folder(path: str) -> Path:
    """Return a folder.

    Raises:
        DataError: It is none.
    """
    if not Path(path).is_dir():
        raise DataError(f"{path} is not a folder.")
    return Path(path)


def lines(path: Path, encoding: str = AUTO, notes: list[str] | None = None) -> list[str]:
    """Return the lines of a text file.

    Args:
        path: The file.
        encoding: Its encoding, guessed unless given.
        notes: Receives the guess.

    Raises:
        DataError: It cannot be read.
    """
    file = delimited.read_text(path, encoding)
    if notes is not None and encoding == AUTO and file.note:
        notes.append(file.note)
    return file.lines()


def table(
    path: Path,
    quoted: bool = True,
    columns: Sequence[str] = (),
    delimiter: str = AUTO,
    encoding: str = AUTO,
    notes: list[str] | None = None,
) -> Iterator[dict[str, Any]]:
    """Read the rows of a table with a header: ``.csv``, ``.tsv``, ``.txt``, ``.jsonl`` or ``.parquet``.

    Args:
        path: The file.
        quoted: Whether a field of CSV or TSV may stand in quotation marks.
        columns: Columns that it must have, to guess the delimiter by.
        delimiter: What separates the fields of CSV or TSV, guessed unless given.
        encoding: Encoding of a text file, guessed unless given.
        notes: Receives the guesses.

    Raises:
        DataError: It cannot be read or is of another form.
    """
    suffix = path.suffix.lower()
    if suffix == ".parquet":
        yield from _parquet(path)
    elif suffix in (".jsonl", ".json"):
        yield from _json_lines(path, encoding, notes)
    elif suffix in delimited.SUFFIXES:
        file = delimited.read_text(path, encoding)
        rows, mark = delimited.rows(file, columns, delimiter, quoted)
        if notes is not None and delimiter == AUTO:
            by = delimited.DELIMITERS.get(mark, repr(mark))
            form = f"read as {file.encoding} with fields separated by {by}"
            notes.append(f"{path}: {form} (guessed; `encoding` and `delimiter` of the corpus change that).")
        elif notes is not None and encoding == AUTO and file.note:
            notes.append(file.note)
        yield from rows
    else:
        raise DataError(f"{path} is not a table; use .csv, .tsv, .txt, .jsonl or .parquet.")


def _json_lines(path: Path, encoding: str, notes: list[str] | None) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(lines(path, encoding, notes), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise DataError(f"{path}, line {number}: is not JSON ({error}).") from None
        if not isinstance(row, dict):
            raise DataError(f"{path}, line {number}: must be an object of columns, got {line[:40]!r}.")
        yield row


def _parquet(path: Path) -> Iterator[dict[str, Any]]:
    import pyarrow
    import pyarrow.parquet

    try:
        yield from (row for batch in pyarrow.parquet.ParquetFile(path).iter_batches() for row in batch.to_pylist())
    except (OSError, pyarrow.ArrowException) as error:
        raise DataError(f"{path} cannot be read ({' '.join(str(error).split())[:200]}).") from None


def cell(row: Mapping[str, Any], column: str, where: str, key: str = "") -> str:
    """Return a text column; empty where it holds nothing.

    Args:
        row: By column.
        column: Its name.
        where: File that the row is of, for messages.
        key: Option that names the column, where there is one.

    Raises:
        DataError: There is no such column.
    """
    if column not in row:
        hint = f" Say which column is meant: {key}=NAME." if key else ""
        raise DataError(f"{where} has no column {column!r}. {suggest(column, row, 'Columns')}{hint}")
    return str(row[column] if row[column] is not None else "").strip()
