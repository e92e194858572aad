"""Codecs that are too large for the package: found by name where a user put their folders."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

from slm_plugin.errors import CodecError
from slm_plugin.speech.protocol import Codec

HOME = "SLM_CODECS"
"""Environment variable: the folder in which codecs are found by name."""

Made = TypeVar("Made", bound=Codec)


class NamedCodec(Generic[Made]):
    """Makes the codec of a folder that was put in place under a name.

    Args:
        name: Name of the codec and of its folder in :func:`codec_home`.
        load: Reads the folder.
        advice: What to do where it is not there.
    """

    def __init__(self, name: str, load: Callable[[Path], Made], advice: str) -> None:
        self.name = name
        self.load = load
        self._advice = advice

    def __call__(self) -> Made:
        """Return the codec.

        Raises:
            CodecError: It was not put in place yet, or is damaged.
        """
        folder = codec_home() / self.name
        if not folder.is_dir():
            raise CodecError(
                f"the codec {self.name!r} is not at {folder} (set {HOME} to look elsewhere). {self._advice}"
            )
        return self.load(folder)


def codec_home() -> Path:
    """Return the folder in which codecs are found by name: ``$SLM_CODECS``, else ``~/.cache/slm_plugin/codecs``."""
    given = os.environ.get(HOME)
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(given) if given else cache / "slm_plugin" / "codecs"
