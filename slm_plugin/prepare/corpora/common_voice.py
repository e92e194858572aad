"""Common Voice: a folder with ``clips`` and one TSV file per split."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from slm_plugin.data.delimited import AUTO
from slm_plugin.errors import DataError, suggest
from slm_plugin.hookspecs import hookimpl
from slm_plugin.prepare.corpora.listing import Listing, cell, folder, table
from slm_plugin.prepare.corpora.protocol import Item, SpokenItem
from slm_plugin.strict import Strict


class CommonVoice(Listing):
    """Mozilla Common Voice as it is downloaded."""

    class Options(Strict):
        """Options of ``common_voice``."""

        path: str
        """Folder of one language, such as ``cv-corpus-21.0/de``."""

        split: str = "train"
        """Name of the TSV file: ``train``, ``dev``, ``test``, ``validated`` and so on."""

        encoding: str = AUTO
        """Encoding of the TSV file, such as ``latin-1``; guessed unless set."""

        language: str = ""
        """ISO 639 code; the column ``locale``, else the folder's name, unless set."""

    licence = "Common Voice is CC0 1.0"

    def __init__(self, options: Options) -> None:
        root = folder(options.path)
        path = root / f"{options.split}.tsv"
        if not path.is_file():
            splits = [file.stem for file in root.glob("*.tsv")]
            raise DataError(f"{root} has no split {options.split!r}. {suggest(options.split, splits, 'Splits')}")
        notes: list[str] = []
        super().__init__(_items(root, path, options, notes), str(path), notes)


def _items(root: Path, path: Path, options: CommonVoice.Options, notes: list[str]) -> Iterator[Item]:
    rows = table(path, False, ("path", "sentence", "client_id"), "\t", options.encoding, notes)
    for row in rows:
        file = cell(row, "path", str(path))
        yield SpokenItem(
            Path(file).stem,
            str(root / "clips" / file),
            cell(row, "sentence", str(path)),
            speaker=cell(row, "client_id", str(path))[:16],
            language=options.language or str(row.get("locale") or root.name),
        )


@hookimpl
def slm_register_corpora(register: Callable[[str, type[Any]], None]) -> None:
    """Offer ``common_voice``."""
    register("common_voice", CommonVoice)
