"""Alignments that others have published or made: TextGrid files of the Montreal Forced Aligner, and CTM files."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from slm_plugin.alignment.known import Matched, matched
from slm_plugin.alignment.protocol import Alignment
from slm_plugin.errors import AlignmentError, suggest
from slm_plugin.hookspecs import hookimpl
from slm_plugin.records import WordSpan

INSTALL = "pip install 'slm-plugin[align]'"
SUFFIXES = (".TextGrid", ".textgrid")


def read_textgrid(path: Path, tier: str = "words") -> tuple[WordSpan, ...]:
    """Read the words of a Praat TextGrid, short or long form.

    Args:
        path: The file.
        tier: Name of the tier; ``SPEAKER - words``, as MFA names tiers of several speakers, is found too.

    Raises:
        AlignmentError: It cannot be read or has no such tier.
    """
    try:
        from praatio import textgrid
        from praatio.utilities.errors import PraatioException
    except ImportError:
        raise AlignmentError(f"TextGrid files need praatio, which is not installed; {INSTALL}") from None
    try:
        grid = textgrid.openTextgrid(str(path), includeEmptyIntervals=False)
    except (OSError, ValueError, IndexError, KeyError, PraatioException) as error:
        raise AlignmentError(f"{path} cannot be read ({' '.join(str(error).split())[:200]}).") from None
    names = [name for name in grid.tierNames if name == tier or name.endswith(f" - {tier}")]
    if not names:
        raise AlignmentError(f"{path} has no tier {tier!r}. {suggest(tier, grid.tierNames, 'Tiers')}")
    spans = [
        WordSpan(entry.label, float(entry.start), float(entry.end))
        for name in names
        for entry in grid.getTier(name).entries
        if len(entry) == 3
    ]
    return tuple(sorted(spans, key=lambda span: (span.start_s, span.end_s)))


def read_ctm(path: Path) -> dict[str, tuple[WordSpan, ...]]:
    """Read a CTM file (NIST): ``utterance channel start duration word [confidence]`` a line, in seconds.

    Raises:
        AlignmentError: It cannot be read, or a line has another form.
    """
    found: dict[str, list[WordSpan]] = {}
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise AlignmentError(f"{path} cannot be read ({error}).") from None
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.startswith(";;"):
            continue
        fields = line.split()
        try:
            name, start, duration, word = fields[0], float(fields[2]), float(fields[3]), fields[4]
        except (IndexError, ValueError):
            raise AlignmentError(
                f"{path}, line {number}: must be `utterance channel start duration word`, got {line[:60]!r}."
            ) from None
        found.setdefault(name, []).append(WordSpan(word, start, start + duration))
    return {name: tuple(sorted(spans, key=lambda span: span.start_s)) for name, spans in found.items()}


class TextGridAligner:
    """Reads ``<recording>.TextGrid``, anywhere below a folder."""

    class Options(Matched):
        """Options of ``textgrid``."""

        path: str
        """Folder of the files."""

        tier: str = "words"
        """Tier of the words."""

    licence = ""

    def __init__(self, options: Options) -> None:
        self._options = options
        if not Path(options.path).is_dir():
            raise AlignmentError(f"{options.path} is not a folder of TextGrid files.")
        # os.walk does not sort, and of two files of one name the same must win everywhere
        files = sorted(
            Path(folder) / name
            for folder, _, names in os.walk(options.path)
            for name in names
            if name.endswith(SUFFIXES)
        )
        self._files = {path.stem: path for path in reversed(files)}
        self.fingerprint = _digest({path.stem: path.stat().st_size for path in files})

    def align(
        self, name: str, wave_N: np.ndarray, sample_rate_hz: int, words: Sequence[str], known: Sequence[WordSpan]
    ) -> Alignment:
        """Return the spans of the recording's file."""
        if name not in self._files:
            raise AlignmentError(f"there is no {name}.TextGrid below {self._options.path}.")
        return matched(name, words, read_textgrid(self._files[name], self._options.tier), self._options)


class CtmAligner:
    """Reads the word times of all recordings from one CTM file."""

    class Options(Matched):
        """Options of ``ctm``."""

        path: str
        """The file."""

    licence = ""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._spans = read_ctm(Path(options.path))
        self.fingerprint = hashlib.sha256(Path(options.path).read_bytes()).hexdigest()[:12]

    def align(
        self, name: str, wave_N: np.ndarray, sample_rate_hz: int, words: Sequence[str], known: Sequence[WordSpan]
    ) -> Alignment:
        """Return the spans of the recording's lines."""
        if name not in self._spans:
            raise AlignmentError(f"{self._options.path} has no line of {name}.")
        return matched(name, words, self._spans[name], self._options)


def _digest(sizes: Mapping[str, int]) -> str:
    text = "".join(f"{name}\t{size}\n" for name, size in sorted(sizes.items()))
    return hashlib.sha256(text.encode()).hexdigest()[:12]


@hookimpl
def slm_register_aligners(register: Callable[[str, type[Any]], None]) -> None:
    """Offer ``textgrid`` and ``ctm``."""
    register("textgrid", TextGridAligner)
    register("ctm", CtmAligner)
