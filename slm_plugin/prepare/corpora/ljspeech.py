"""LJSpeech: ``metadata.csv`` with ``name|text|normalised text``, and ``wavs``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from slm_plugin.data.delimited import AUTO
from slm_plugin.hookspecs import hookimpl
from slm_plugin.prepare.corpora.listing import Listing, folder, lines
from slm_plugin.prepare.corpora.protocol import Item, SpokenItem, Unusable
from slm_plugin.strict import Strict


class LjSpeech(Listing):
    """LJSpeech, and other corpora of one speaker in its form."""

    class Options(Strict):
        """Options of ``ljspeech``."""

        path: str
        """Folder with ``metadata.csv`` and ``wavs``."""

        normalised: bool = True
        """Whether numbers and abbreviations are taken as words, from the third column."""

        speaker: str = "LJ"
        """Name of the speaker."""

        encoding: str = AUTO
        """Encoding of ``metadata.csv``, such as ``latin-1``; guessed unless set."""

        language: str = "en"
        """ISO 639 code of the language."""

    licence = "LJSpeech is in the public domain; another corpus in its form has terms of its own"

    def __init__(self, options: Options) -> None:
        notes: list[str] = []
        super().__init__(_items(folder(options.path), options, notes), options.path, notes)


def _items(root: Path, options: LjSpeech.Options, notes: list[str]) -> Iterator[Item]:
    for number, line in enumerate(lines(root / "metadata.csv", options.encoding, notes), 1):
        # the file has no quoting: a quotation mark is text
        name, *texts = line.split("|")
        if not name or not texts:
            yield Unusable(name or f"line-{number}", "no_text", f"metadata.csv, line {number}: must be `name|text`.")
            continue
        text = texts[1] if options.normalised and len(texts) > 1 else texts[0]
        yield SpokenItem(
            name, str(root / "wavs" / f"{name}.wav"), text.strip(), speaker=options.speaker, language=options.language
        )


@hookimpl
def slm_register_corpora(register: Callable[[str, type[Any]], None]) -> None:
    """Offer ``ljspeech``."""
    register("ljspeech", LjSpeech)
