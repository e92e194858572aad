"""Folders in the form of LibriSpeech: ``SPEAKER/CHAPTER/SPEAKER-CHAPTER.trans.txt`` beside the recordings."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

from slm_plugin.data.delimited import AUTO
from slm_plugin.hookspecs import hookimpl
from slm_plugin.prepare.corpora.listing import Listing, folder, lines
from slm_plugin.prepare.corpora.protocol import Item, SpokenItem, Unusable
from slm_plugin.speech.audio import SUFFIXES
from slm_plugin.strict import Strict

TRANSCRIPTS = ".trans.txt"


class LibriSpeech(Listing):
    """LibriSpeech, Multilingual LibriSpeech in that form, and whatever imitates them."""

    class Options(Strict):
        """Options of ``librispeech``."""

        path: str
        """Folder of the corpus or of a part of it, such as ``LibriSpeech/dev-clean``."""

        encoding: str = AUTO
        """Encoding of the transcripts, such as ``latin-1``; guessed unless set."""

        language: str = "en"
        """ISO 639 code of the language."""

        case: Literal["keep", "lower", "sentence"] = "keep"
        """The transcripts are in capitals: ``lower`` writes them small, ``sentence`` with one capital."""

    licence = "LibriSpeech is CC BY 4.0; another corpus in its form has terms of its own"

    def __init__(self, options: Options) -> None:
        notes: list[str] = []
        super().__init__(_items(folder(options.path), options, notes), options.path, notes)


def _items(root: Path, options: LibriSpeech.Options, notes: list[str]) -> Iterator[Item]:
    # os.walk does not sort, and the order decides which shard an item is in
    for where, folders, files in os.walk(root):
        folders.sort()
        texts: dict[str, str] = {}
        for name in sorted(file for file in files if file.endswith(TRANSCRIPTS)):
            for line in lines(Path(where) / name, options.encoding, notes):
                key, _, text = line.partition(" ")
                if key:
                    texts[key] = text.strip()
        recordings = {Path(file).stem: file for file in sorted(files, reverse=True) if file.endswith(SUFFIXES)}
        for key in sorted({*texts, *recordings}):
            if key not in texts:
                yield Unusable(key, "no_text", f"{recordings[key]} is in no {TRANSCRIPTS} file beside it.")
            elif key not in recordings:
                yield Unusable(key, "no_audio", f"no recording of {key} is in {Path(where).relative_to(root)}.")
            else:
                text = _written(texts[key], options.case)
                path = str(Path(where) / recordings[key])
                yield SpokenItem(key, path, text, speaker=key.split("-")[0], language=options.language)


def _written(text: str, case: str) -> str:
    if case == "keep":
        return text
    small = text.lower()
    return small if case == "lower" else small[:1].upper() + small[1:]


@hookimpl
def slm_register_corpora(register: Callable[[str, type[Any]], None]) -> None:
    """Offer ``librispeech``."""
    register("librispeech", LibriSpeech)
