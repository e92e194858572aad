"""Data sets of the hub, or of local files in their form, that have a column with recordings."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from slm_plugin.hookspecs import hookimpl
from slm_plugin.prepare.corpora.loading import digest, open_rows, require_columns
from slm_plugin.prepare.corpora.protocol import Item, SpokenItem, Unusable
from slm_plugin.strict import Strict


class HubAudio:
    """Rows with an audio column; recordings stay encoded until their turn comes."""

    class Options(Strict):
        """Options of ``hub``."""

        path: str
        """Name on the hub, or a local folder or file: Parquet, JSON lines, or what ``save_to_disk`` wrote."""

        subset: str | None = None
        """Configuration of the set."""

        split: str = "train"
        """Split of the set."""

        revision: str | None = None
        """Commit, branch or tag on the hub."""

        audio: str = "audio"
        """Column with the recording."""

        text: str = "text"
        """Column with what is said."""

        name: str | None = None
        """Column with a unique name; ``<split>-<number of the row>`` unless set."""

        speaker: str | None = None
        """Column with the speaker; none unless set."""

        language: str = ""
        """ISO 639 code of all recordings; by the script of each text unless set."""

        licence: str = ""
        """Terms of the data, for its card."""

    kind: Literal["speech", "chats"] = "speech"

    def __init__(self, options: Options) -> None:
        self._options = options
        rows = open_rows(options.path, options.subset, options.split, options.revision)
        columns = [column for column in (options.name, options.speaker) if column is not None]
        require_columns(rows, [options.audio, options.text, *columns], options.path)
        self._rows = rows
        self.licence = options.licence or f"those of the page of {options.path}"
        texts = rows.select_columns([options.text, *columns])
        self.fingerprint = digest(texts, **options.model_dump(exclude={"licence"}))

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> Item:
        row, options = self._rows[index], self._options
        name = f"{options.split}-{index:08d}" if options.name is None else str(row[options.name])
        if row[options.audio] is None:
            return Unusable(name, "no_audio", f"row {index} has no recording.")
        speaker = str(row[options.speaker]) if options.speaker else ""
        return SpokenItem(
            name, row[options.audio], str(row[options.text] or "").strip(), speaker=speaker, language=options.language
        )


@hookimpl
def slm_register_corpora(register: Callable[[str, type[Any]], None]) -> None:
    """Offer ``hub``."""
    register("hub", HubAudio)
