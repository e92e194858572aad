"""Errors a user can cause, and how they read.

The tree::

    SlmError
    ├── ConfigError        a YAML or command line is wrong; lists every problem found
    ├── HostError          the installed LLaMA-Factory is not the one this release was written for
    ├── PluginError        a plugin is missing, misnamed or implements an unknown hook
    ├── VocabularyError    tokenizer, unit count or unit value do not fit together
    ├── DataError          a data set or a row of it cannot be used
    ├── AudioError         a recording cannot be turned into units
    ├── AlignmentError     the words of a text cannot be placed in a recording
    ├── CodecError         a codec folder is missing, damaged or of another form
    ├── WeightsError       weights on disk are missing, damaged or do not fit together
    ├── PipelineError      a pipeline file or one of its steps failed
    └── EngineError        the text engine behind the speech server failed or is away

Every message says what is wrong, where, what is accepted and, for names, the nearest valid one.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass


class SlmError(Exception):
    """Base of all errors that are the user's to mend; shown without a traceback."""


@dataclass(frozen=True)
class Problem:
    """One thing wrong in a configuration.

    Attributes:
        where: File and key, such as ``asr.yaml: slm.units.count``.
        what: The problem and what is accepted instead, as one sentence.
    """

    where: str
    what: str

    def __str__(self) -> str:
        return f"{self.where}: {self.what}"


class ConfigError(SlmError):
    """One or more problems in a configuration, all reported at once."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        if len(self.problems) == 1:
            text = str(self.problems[0])
        else:
            text = f"{len(self.problems)} problems:\n" + "\n".join(f"  - {problem}" for problem in self.problems)
        super().__init__(text)


class HostError(SlmError):
    """The installed LLaMA-Factory differs from what this release expects."""


class PluginError(SlmError):
    """A plugin is missing, registered twice or implements an unknown hook."""


class VocabularyError(SlmError):
    """Tokenizer, unit count or unit value do not fit together."""


class DataError(SlmError):
    """A data set, or a row of it, cannot be used."""


class AudioError(SlmError):
    """A recording cannot be turned into units."""


class AlignmentError(SlmError):
    """The words of a text cannot be placed in a recording."""


class CodecError(SlmError):
    """A codec folder is missing, damaged or of another form."""


class WeightsError(SlmError):
    """Weights on disk are missing, damaged or do not fit together."""


class PipelineError(SlmError):
    """A pipeline file or one of its steps failed."""


class EngineError(SlmError):
    """The text engine behind the speech server failed or is away.

    Attributes:
        status: HTTP status to answer with.
        reached: Whether the engine may have taken the request, so that the request may be what ended it.
    """

    def __init__(self, message: str, status: int = 503, reached: bool = True) -> None:
        super().__init__(message)
        self.status = status
        self.reached = reached


def suggest(name: object, known: Iterable[str], noun: str = "Known") -> str:
    """Return ``Did you mean 'asr'? Known: asr, sqa, tts.`` for a name that is not among ``known``."""
    names = sorted(known)
    # the comparison takes quadratic time, and no known name is that long
    close = difflib.get_close_matches(str(name)[:100], names, n=1, cutoff=0.5)
    hint = f"Did you mean {close[0]!r}? " if close else ""
    return f"{hint}{noun}: {', '.join(names) if names else 'none'}."
