"""Text files of users: their encoding, and what separates the fields of a table.

Both are guessed unless they are given, and a guess says what it is, so that it can be written to the log.
"""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from slm_plugin.errors import DataError, suggest

AUTO = "auto"
SUFFIXES = (".csv", ".tsv", ".txt")
DELIMITERS = {",": "comma", ";": "semicolon", "\t": "tab", "|": "pipe"}
"""What may separate fields, and what it is called."""

_BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    # the mark of UTF-32 begins with that of UTF-16
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_OTHERS = (
    "cp1252",
    "cp1250",
    "cp1251",
    "koi8_r",
    "cp1253",
    "shift_jis",
    "euc_jp",
    "gb18030",
    "big5",
    "euc_kr",
    "cp1254",
    "cp1255",
    "cp1256",
)
"""Encodings before Unicode, the more frequent ones first: of equally good guesses the first is taken."""

_SAMPLE_BYTES = 200_000
_FIELD_LIMIT = 10_000_000
"""Fields of Common Voice may be longer than the default limit of the csv module."""


@dataclass(frozen=True)
class TextFile:
    """A decoded text file.

    Attributes:
        path: Where it is.
        text: Its content, line ends as they are, without a byte-order mark.
        encoding: How it was decoded.
    """

    path: Path
    text: str
    encoding: str

    @property
    def note(self) -> str:
        """The guess in one line; empty if the file is UTF-8."""
        if self.encoding in ("utf-8", "utf-8-sig"):
            return ""
        return f"{self.path}: read as {self.encoding}, which was guessed; if letters are wrong, set encoding."

    def lines(self) -> list[str]:
        """Return the lines."""
        # str.splitlines also cuts at characters that text may hold, such as U+0085 and U+2028
        found = re.split(r"\r\n|\n|\r", self.text)
        return found[:-1] if found[-1] == "" else found


def read_text(path: Path, encoding: str = AUTO) -> TextFile:
    """Read a text file.

    Args:
        path: The file.
        encoding: Name of an encoding that Python has, or ``auto``: a byte-order mark decides, then UTF-8 if the
            bytes are valid UTF-8, then the statistics of ``charset_normalizer``.

    Raises:
        DataError: The file cannot be read, or its bytes are not of the encoding.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}).") from None
    if encoding != AUTO:
        try:
            return TextFile(path, data.decode(encoding).removeprefix("\ufeff"), encoding)
        except LookupError:
            known = sorted({AUTO, "utf-8", "utf-16", "latin-1", *_OTHERS})
            raise DataError(f"no encoding is called {encoding!r}. {suggest(encoding, known, 'Such as')}") from None
        except UnicodeDecodeError as error:
            raise DataError(f"{path}, byte {error.start}: is not {encoding} ({error.reason}); set encoding.") from None
    for mark, name in _BYTE_ORDER_MARKS:
        if data.startswith(mark):
            return TextFile(path, _decoded(data, name, path), name)
    try:
        # UTF-16 of Latin letters is valid UTF-8 with a zero byte for every letter
        if b"\0" not in data:
            return TextFile(path, data.decode("utf-8"), "utf-8")
    except UnicodeDecodeError:
        pass
    name = guess_encoding(data)
    return TextFile(path, _decoded(data, name, path), name)


def guess_encoding(data: bytes) -> str:
    """Return the most likely encoding of bytes that have no byte-order mark and are not UTF-8."""
    sample = data[:_SAMPLE_BYTES]
    if sample.count(0) > len(sample) // 8:
        # the zero byte of an ASCII letter is the second one in little-endian order
        return "utf-16-le" if sample[1::2].count(0) >= sample[::2].count(0) else "utf-16-be"
    from charset_normalizer import from_bytes

    # a sample may end within a character
    whole = sample[: sample.rfind(b"\n") + 1] or sample
    ranked = []
    for position, name in enumerate(_OTHERS):
        match = from_bytes(whole, cp_isolation=[name], threshold=0.3).best()
        if match is not None:
            ranked.append((round(match.chaos, 2), -round(match.coherence, 1), position, name))
    return min(ranked)[-1] if ranked else "cp1252"


def guess_delimiter(text: str, columns: Sequence[str], default: str) -> str:
    """Return what separates the fields of a table.

    Args:
        text: The table with its header.
        columns: Columns that it must have: a delimiter that gives them is right.
        default: What its suffix stands for.
    """
    header = text.lstrip("\r\n").split("\n", 1)[0]
    n_fields = {mark: len(_fields(header, mark)) for mark in (default, *DELIMITERS)}
    fitting = [mark for mark in n_fields if set(columns) <= set(_fields(header, mark))]
    if (columns and fitting) or (not columns and n_fields[default] > 1):
        return fitting[0] if columns else default
    candidates = [mark for mark, n in n_fields.items() if n > 1]
    try:
        return csv.Sniffer().sniff(text[:_SAMPLE_BYTES], "".join(candidates)).delimiter if candidates else default
    except csv.Error:
        return max(candidates, key=lambda mark: n_fields[mark])


def rows(
    file: TextFile, columns: Sequence[str] = (), delimiter: str = AUTO, quoted: bool = True
) -> tuple[Iterator[dict[str, str | None]], str]:
    """Return the rows of a table with a header, and what separates its fields.

    Args:
        file: The table.
        columns: Columns that it must have, to guess the delimiter by.
        delimiter: What separates fields, or ``auto``.
        quoted: Whether a field may stand in quotation marks.

    Raises:
        DataError: A field is longer than 10 MB, or quotation marks are wrong; raised while rows are read.
    """
    text, mark = file.text, delimiter
    # Excel writes the delimiter into a line of its own
    if found := re.match(r"sep=(.)\r?\n", text):
        text, mark = text[found.end() :], found[1] if delimiter == AUTO else delimiter
    if mark == AUTO:
        mark = guess_delimiter(text, columns, "\t" if file.path.suffix.lower() == ".tsv" else ",")
    return _rows(file.path, text, mark, quoted), mark


def _rows(path: Path, text: str, mark: str, quoted: bool) -> Iterator[dict[str, str | None]]:
    csv.field_size_limit(_FIELD_LIMIT)
    reader = csv.DictReader(
        io.StringIO(text, newline=""), delimiter=mark, quoting=csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE
    )
    try:
        yield from ({str(key): value for key, value in row.items() if key is not None} for row in reader)
    except csv.Error as error:
        raise DataError(f"{path}, line {reader.line_num}: {error}.") from None


def _fields(line: str, mark: str) -> list[str]:
    return next(csv.reader([line.rstrip("\r")], delimiter=mark), [])


def _decoded(data: bytes, name: str, path: Path) -> str:
    try:
        return data.decode(name).removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        text = f"looks like {name} but is not ({error.reason}); set encoding."
        raise DataError(f"{path}, byte {error.start}: {text}") from None
