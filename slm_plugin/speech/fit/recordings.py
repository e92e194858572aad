"""Recordings under files and folders."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from slm_plugin.errors import AudioError
from slm_plugin.speech.audio import FORMATS, SUFFIXES


def find_recordings(places: Iterable[Path]) -> list[Path]:
    """Return the files among ``places`` and all recordings in the folders among them, sorted, each once.

    Raises:
        AudioError: A place does not exist, or there is no recording at all.
    """
    found: set[Path] = set()
    for place in places:
        if place.is_dir():
            found |= {path for path in place.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file()}
        elif place.is_file():
            found.add(place)
        else:
            raise AudioError(f"{place} does not exist.")
    if not found:
        raise AudioError(f"no recordings found in {', '.join(map(str, places)) or 'nothing'}; they are {FORMATS}.")
    return sorted(found)
