"""Find a codec by what a user writes: a registered name, or a folder written by ``Codec.save``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from slm_plugin.errors import CodecError, VocabularyError, suggest
from slm_plugin.plugins import Registry
from slm_plugin.speech.folder import CONFIG, read_config
from slm_plugin.speech.protocol import Codec


def load_codec(name_or_folder: str | Path, registry: Registry) -> Codec:
    """Return the codec with a registered name, or the one in a folder.

    A name wins over a folder of the same name; write ``./tiny`` for the folder. A folder's
    ``config.json`` names its kind; the kind of a plugin's codec is the name it is registered
    under, and its factory must then have a ``load(folder)`` method.

    Raises:
        CodecError: Neither exists, or the folder is damaged; the nearest name is offered.
    """
    if str(name_or_folder) in registry.codecs:
        codec: Codec = registry.codecs.get(str(name_or_folder))()
        return codec
    folder = Path(name_or_folder)
    if not folder.is_dir():
        raise CodecError(
            f"no codec is called {str(name_or_folder)!r} and no folder is there."
            f" {suggest(name_or_folder, registry.codecs.names(), 'Registered')}"
        )
    return _loader(read_config(folder)["kind"], folder, registry)(folder)


def require_units(codec: Codec, name: str, n_units: int) -> None:
    """Refuse a codec of another number of units than a model has.

    Raises:
        VocabularyError: Says both numbers.
    """
    if codec.n_units != n_units:
        raise VocabularyError(f"the model has {n_units} units, the codec {name!r} has {codec.n_units}.")


def _loader(kind: object, folder: Path, registry: Registry) -> Callable[[Path], Codec]:
    from slm_plugin.speech.mel_kmeans import KIND, MelKmeansCodec

    if kind == KIND:
        return MelKmeansCodec.load
    load: Callable[[Path], Codec] | None = None
    if isinstance(kind, str) and kind in registry.codecs:
        load = getattr(registry.codecs.get(kind), "load", None)
    if load is None:
        known = [KIND, *(name for name in registry.codecs.names() if hasattr(registry.codecs.get(name), "load"))]
        raise CodecError(f"{folder / CONFIG}: no codec is of kind {kind!r}. {suggest(kind, known, 'Kinds')}")
    return load
