"""What a golden value is: an input that one can follow, and what another implementation makes of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any


@dataclass(frozen=True)
class Entry:
    """One golden value; nothing here or in the ``by_*`` modules imports the package that is tested.

    Attributes:
        algorithm: Name, and key in ``golden.json``.
        source: Paper and section or equation, as the module's docstring says it.
        made_by: Library, or ``formula`` for one that is written out in plain numbers.
        input: Arguments of ``reference``.
        reference: Calculates the value.
    """

    algorithm: str
    source: str
    made_by: str
    input: dict[str, Any]
    reference: Callable[..., Any]

    def row(self) -> dict[str, Any]:
        """Return what is written to ``golden.json``."""
        library, _, what = self.made_by.partition(" ")
        made_by = self.made_by if library.startswith("formula") else f"{library} {version(library)} {what}"
        return {
            "algorithm": self.algorithm,
            "source": self.source,
            "made_by": made_by,
            "input": self.input,
            "value": self.reference(**self.input),
        }
