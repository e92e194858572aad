"""The form of a codec folder: ``config.json`` (kind, fingerprint, settings) and ``codec.safetensors``."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from slm_plugin.errors import CodecError, ConfigError
from slm_plugin.strict import Strict, parse
from slm_plugin.weights.durable import exchange, flush, flush_tree
from slm_plugin.weights.permissions import make_folder_beside, share

CONFIG, TENSORS = "config.json", "codec.safetensors"
Settings = TypeVar("Settings", bound=Strict)


def write_folder(folder: Path, kind: str, settings: Strict, tensors: dict[str, np.ndarray], fingerprint: str) -> None:
    """Write a codec folder; it appears whole or not at all, and replaces one that is there.

    Tensors are written by name, each with its shape and type.
    """
    with whole_folder(folder) as partial:
        write_config(partial, kind, settings, fingerprint)
        save_file({name: np.ascontiguousarray(value) for name, value in tensors.items()}, partial / TENSORS)


@contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """Yield an empty folder that takes the place of ``folder`` when the block ends without an error."""
    folder = Path(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = make_folder_beside(folder, "-")
    try:
        yield temporary
        # safetensors makes files that only their owner may read
        share(temporary)
        flush_tree(temporary)
        if not folder.exists():
            temporary.rename(folder)
        elif not exchange(temporary, folder):
            shutil.rmtree(folder)
            temporary.rename(folder)
        flush(folder.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def write_config(
    folder: Path, kind: str, settings: Strict, fingerprint: str, more: Mapping[str, Any] | None = None
) -> None:
    """Write ``config.json`` of a codec folder, whole or not at all.

    Args:
        folder: An existing folder.
        kind: Name that the codec's reader is registered under.
        settings: The codec's settings.
        fingerprint: The codec's fingerprint.
        more: Further entries.
    """
    config = {"kind": kind, "fingerprint": fingerprint, "settings": settings.model_dump(), **(more or {})}
    temporary = folder / f".{CONFIG}.new"
    temporary.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    temporary.replace(folder / CONFIG)


def read_config(folder: Path) -> dict[str, Any]:
    """Return ``config.json`` of a codec folder.

    Raises:
        CodecError: It is missing, unreadable or lacks ``kind``, ``fingerprint`` or ``settings``.
    """
    path = Path(folder) / CONFIG
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CodecError(f"{folder} is not a codec folder: it has no {CONFIG}.") from None
    except (OSError, ValueError) as error:
        raise CodecError(f"{path} cannot be read ({error}); fit or copy the codec again.") from None
    wanted = ("kind", "fingerprint", "settings")
    missing = [key for key in wanted if not isinstance(config, dict) or key not in config]
    if missing:
        raise CodecError(f"{path} lacks {', '.join(missing)}; a codec folder's {CONFIG} has {', '.join(wanted)}.")
    return config


def read_folder(folder: Path, kind: str, settings: type[Settings]) -> tuple[Settings, dict[str, np.ndarray], str]:
    """Return settings, tensors and fingerprint of a codec folder of one kind.

    Tensors come by name, each of the shape and type that it was written with.

    Raises:
        CodecError: The folder is of another kind or damaged.
    """
    folder = Path(folder)
    config = read_config(folder)
    if config["kind"] != kind:
        raise CodecError(f"{folder} holds a codec of kind {config['kind']!r}, not {kind!r}.")
    try:
        parsed = parse(settings, config["settings"], f"{folder / CONFIG}: settings")
        tensors = load_file(folder / TENSORS)
    except ConfigError as error:
        raise CodecError(str(error)) from None
    except (OSError, SafetensorError) as error:
        raise CodecError(f"{folder / TENSORS} cannot be read ({error}); fit or copy the codec again.") from None
    return parsed, tensors, config["fingerprint"]
