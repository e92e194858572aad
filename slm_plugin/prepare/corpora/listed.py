"""Any folder of recordings with a table that says what is said in them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from pydantic import field_validator

from slm_plugin.data.delimited import AUTO
from slm_plugin.hookspecs import hookimpl
from slm_plugin.prepare.corpora.listing import Listing, cell, table
from slm_plugin.prepare.corpora.protocol import Item, SpokenItem, Unusable
from slm_plugin.strict import Strict


class Listed(Listing):
    """A table (CSV, TSV, JSON lines, Parquet) of recordings and texts."""

    class Options(Strict):
        """Options of ``table``."""

        path: str
        """The table, with a header or named columns."""

        folder: str | None = None
        """What the paths in it are relative to; the table's folder unless set."""

        audio: str = "audio"
        """Column with the path of the recording."""

        text: str = "text"
        """Column with what is said."""

        name: str | None = None
        """Column with a unique name; the path of the recording unless set."""

        speaker: str | None = None
        """Column with the speaker; none unless set."""

        delimiter: str = AUTO
        """What separates the fields of CSV or TSV: ``,``, ``;``, ``|``, ``tab`` or another character; guessed unless
        set."""

        encoding: str = AUTO
        """Encoding of the table, such as ``latin-1``; guessed unless set."""

        language: str = ""
        """ISO 639 code of all recordings; by the script of each text unless set."""

        licence: str = ""
        """Terms of the data, for its card."""

        @field_validator("delimiter")
        @classmethod
        def _one_character(cls, value: str) -> str:
            value = {"tab": "\t", "\\t": "\t"}.get(value, value)
            if value != AUTO and (len(value) != 1 or value in '\r\n"'):
                raise ValueError(f"a delimiter is one character, tab or auto, got {value!r}.")
            return value

    def __init__(self, options: Options) -> None:
        self.licence = options.licence or "not stated"
        notes: list[str] = []
        super().__init__(_items(Path(options.path), options, notes), options.path, notes)


def _items(path: Path, options: Listed.Options, notes: list[str]) -> Iterator[Item]:
    root = Path(options.folder) if options.folder else path.parent
    named = [name for name in (options.audio, options.text, options.name, options.speaker) if name is not None]
    found = table(path, True, named, options.delimiter, options.encoding, notes)
    for number, row in enumerate(found, 1):
        file = cell(row, options.audio, str(path), "corpus.table.audio")
        name = cell(row, options.name, str(path), "corpus.table.name") if options.name else file
        if not name:
            yield Unusable(f"row-{number}", "no_audio", f"{path.name}, row {number}: names no recording.")
            continue
        speaker = cell(row, options.speaker, str(path), "corpus.table.speaker") if options.speaker else ""
        # an absolute path stays what it is
        yield SpokenItem(
            name,
            str(root / file),
            cell(row, options.text, str(path), "corpus.table.text"),
            speaker=speaker,
            language=options.language,
        )


@hookimpl
def slm_register_corpora(register: Callable[[str, type[Any]], None]) -> None:
    """Offer ``table``."""
    register("table", Listed)
